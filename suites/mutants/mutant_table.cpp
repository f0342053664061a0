#include "suites/mutants/mutant_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <random>
#include <regex>

#include "reports/h5.hpp"
#include "suites/text_table.hpp"

namespace lockstep {
namespace {

bool by_numbers(const std::string& gate) { return gate == "numbers" || gate == "guarded"; }

// Without what would break a table's cell.
std::string cell(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  std::replace(text.begin(), text.end(), '|', '/');
  return text;
}
// The layer that a call's name says, "layers.3." or unit 4; empty: none, or another unit.
std::string layer_of(const std::string& name) {
  static const std::regex layer("layers\\.([0-9]+)"), unit("unit([1-9][0-9]*)\\.");
  std::smatch match;
  if (std::regex_search(name, match, layer)) return match[1];
  return std::regex_search(name, match, unit) ? fmt::to_string(std::stoi(match[1]) - 1) : "";
}
bool names_layer(const Mutant& m, const std::string& layer) {
  return std::any_of(m.verdicts.begin(), m.verdicts.end(), [&](const GateVerdict& v) {
    return v.gate != "fast mode" &&
           (v.found.find("layers." + layer + ".") != std::string::npos ||
            v.found.find(fmt::format("unit{}.", std::stoi(layer) + 1)) != std::string::npos);
  });
}

// The axes that the gates of exact mode speak of: of a message that is not as it should be, or as suspects.
std::vector<std::string> axes_named(const Mutant& m) {
  static const std::regex named(" on (dp|tp|pp|cp|kv|tie|world)\\b|suspect ([a-z]+)(?: or ([a-z]+))?");
  std::vector<std::string> axes;
  for (const GateVerdict& v : m.verdicts) {
    if (v.gate == "fast mode") continue;
    for (std::sregex_iterator it(v.found.begin(), v.found.end(), named), end; it != end; ++it)
      for (std::size_t i = 1; i < it->size(); ++i)
        if ((*it)[i].matched) axes.push_back((*it)[i]);
  }
  return axes;
}
// Ranks that share a key/value head are tensor parallel, and a tied weight's are stages.
bool names_axis(const Mutant& m) {
  const std::vector<std::string> axes = axes_named(m);
  return std::any_of(axes.begin(), axes.end(), [&](const std::string& a) {
    return a == m.axis || (m.axis == "kv" && a == "tp") || (m.axis == "tie" && a == "pp");
  });
}

std::string all_gates(const Mutant& m) {
  std::string all;
  for (const GateVerdict& v : m.verdicts) all += (all.empty() ? "" : ", ") + v.gate;
  return all;
}

}  // namespace

std::string summary_table(const std::vector<Mutant>& mutants) {
  struct Counts {
    int catches = 0, first = 0, alone = 0;
  };
  std::map<std::string, Counts> gates;
  int without_numbers = 0, of_a_layer = 0, layer_named = 0, of_an_axis = 0, axis_named = 0, other_axis = 0;
  for (const Mutant& m : mutants) {
    if (!m.caught()) continue;
    ++gates[m.verdicts.front().gate].first;
    if (const std::string layer = layer_of(m.mutation.name); !layer.empty())
      ++of_a_layer, layer_named += names_layer(m, layer);
    if (!m.axis.empty())
      ++of_an_axis, axis_named += names_axis(m), other_axis += !names_axis(m) && !axes_named(m).empty();
    bool other = false;
    for (const GateVerdict& v : m.verdicts) {
      ++gates[v.gate].catches;
      gates[v.gate].alone += m.verdicts.size() == 1;
      other |= !by_numbers(v.gate) && v.gate != "fast mode";
    }
    without_numbers += other;
  }
  TextTable table({"gate", "catches", "asked first", "alone"}, 1);
  for (const auto& [gate, c] : gates)
    table.add({gate, fmt::to_string(c.catches), fmt::to_string(c.first), fmt::to_string(c.alone)});
  return fmt::format(
      "{}\nWith the numbers gate off, and without fast mode, {} of {} are caught.\n"
      "Of {} in a message or buffer of one layer, the gates of exact mode name the layer of {}.\n"
      "Of {} in a message they name its axis of {}, and only another one of {}.\n",
      table.text(true), without_numbers, mutants.size(), of_a_layer, layer_named, of_an_axis, axis_named,
      other_axis);
}

// Ten messages of one layer, by chance: does what the gates say lead there?
std::string ten_at_random(const std::vector<Mutant>& mutants, i64 seed) {
  std::vector<const Mutant*> from;
  for (const Mutant& m : mutants)
    if (m.caught() && !m.axis.empty() && !layer_of(m.mutation.name).empty()) from.push_back(&m);
  std::mt19937_64 random(static_cast<std::uint64_t>(seed));
  TextTable table({"mutant", "plan", "layer", "axis", "named", "what the gates say"}, 6);
  for (int i = 0; i < 10 && !from.empty(); ++i) {
    const auto at = from.begin() + static_cast<std::ptrdiff_t>(random() % from.size());
    const Mutant& m = **at;
    const std::string layer = layer_of(m.mutation.name);
    const char* named = names_layer(m, layer) ? names_axis(m) ? "both" : "layer"
                        : names_axis(m)       ? "axis"
                                              : "neither";
    std::string said;
    for (const GateVerdict& v : m.verdicts)
      if (v.gate != "fast mode") said += (said.empty() ? "" : "; ") + v.gate + ": " + v.found;
    table.add({cell(m.mutation.text()), m.plan, layer, m.axis, named, cell(said)});
    from.erase(at);
  }
  return table.text(true);
}

std::string mutant_table(const std::vector<Mutant>& mutants) {
  TextTable table({"mutant", "plan", "change", "gate", "names", "all gates", "seen in"}, 7);
  for (const Mutant& m : mutants) {
    const GateVerdict first =
        m.caught() ? m.verdicts.front() : GateVerdict{m.missed() ? "NONE" : "equivalent", ""};
    table.add({cell(m.bug.empty() ? m.mutation.text() : m.bug), m.plan, change_name(m.mutation.change),
               first.gate, cell(m.caught() ? named_by(first) : m.equivalent), all_gates(m), m.seen_in});
  }
  return table.text(true);
}

std::string verdict_line(const std::vector<Mutant>& mutants) {
  const auto equivalent =
      std::count_if(mutants.begin(), mutants.end(), [](const Mutant& m) { return !m.equivalent.empty(); });
  const auto caught =
      std::count_if(mutants.begin(), mutants.end(), [](const Mutant& m) { return m.caught(); });
  const double all = static_cast<double>(std::max<std::size_t>(1, mutants.size()));
  return fmt::format("{} of {} caught, {} equivalent ({:.1f} %)", caught,
                     static_cast<std::ptrdiff_t>(mutants.size()) - equivalent, equivalent,
                     100 * static_cast<double>(equivalent) / all);
}

void write_mutants(const std::vector<Mutant>& mutants, const std::string& path) {
  std::map<std::string, std::vector<std::string>> columns;
  for (const Mutant& m : mutants) {
    const GateVerdict first = m.caught() ? m.verdicts.front() : GateVerdict{};
    const std::pair<const char*, std::string> cells[] = {{"mutant", m.mutation.text()},
                                                         {"bug", m.bug},
                                                         {"seen_in", m.seen_in},
                                                         {"plan", m.plan},
                                                         {"kind", m.kind},
                                                         {"change", change_name(m.mutation.change)},
                                                         {"gate", first.gate},
                                                         {"tensor", named_by(first)},
                                                         {"found", first.found},
                                                         {"gates", all_gates(m)},
                                                         {"equivalent", m.equivalent}};
    for (const auto& [name, text] : cells) columns[name].push_back(text);
  }
  h5::Writer file(path);
  file.attribute("verdict", verdict_line(mutants));
  for (const auto& [name, texts] : columns) file.write("/" + name, texts);
  file.close();
}

}  // namespace lockstep
