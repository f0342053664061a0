#include "suites/run/reference_file.hpp"

#include <fmt/format.h>

#include <filesystem>

#include "ref/error.hpp"
#include "reports/h5.hpp"

namespace lockstep {
namespace {

const std::string kFormat = "lockstep reference";

// Two rows, gradient and weight, without pads: those are zero.
std::string place(std::size_t step, const Param& p) { return fmt::format("/step{}/{}", step, p.name); }

}  // namespace

void keep_reference(const std::string& path, const std::string& key, const KeptReference& reference) {
  const Whole& whole = reference.whole;
  h5::Writer file(path);
  file.attribute("format", kFormat);
  file.attribute("key", key);
  file.attribute("hash", whole.hash());
  file.attribute("seconds", reference.seconds);
  file.attribute("steps", static_cast<i64>(whole.steps.size()));
  for (std::size_t k = 0; k < whole.steps.size(); ++k) {
    const Whole::Step& s = whole.steps[k];
    file.group(fmt::format("/step{}", k));
    file.write(fmt::format("/step{}/loss", k), {}, &s.loss);
    file.write(fmt::format("/step{}/grad_norm", k), {}, &s.grad_norm);
    for (std::size_t i = 0; i < whole.table.size(); ++i) {
      const Param& p = whole.table[i];
      if (p.tied_to >= 0) continue;
      std::vector<float> rows(s.gradient[i].begin(), s.gradient[i].begin() + p.count());
      rows.insert(rows.end(), s.weight[i].begin(), s.weight[i].begin() + p.count());
      file.write(place(k, p), {2, static_cast<hsize_t>(p.count())}, rows.data());
    }
  }
  file.close();
}

std::optional<KeptReference> kept_reference(const std::string& path, const std::string& key,
                                            const std::vector<Param>& table) {
  if (!std::filesystem::exists(path)) return {};
  try {
    const h5::Reader file(path);
    if (file.attribute("format") != kFormat || file.attribute("key") != key) return {};
    KeptReference reference;
    reference.seconds = std::stod(file.attribute("seconds"));
    reference.whole.table = table;
    reference.whole.steps.resize(std::stoul(file.attribute("steps")));
    for (std::size_t k = 0; k < reference.whole.steps.size(); ++k) {
      Whole::Step& s = reference.whole.steps[k];
      s.loss = file.scalar<double>(fmt::format("/step{}/loss", k));
      s.grad_norm = file.scalar<double>(fmt::format("/step{}/grad_norm", k));
      for (const Param& p : table) {
        std::vector<float>&gradient = s.gradient.emplace_back(), &weight = s.weight.emplace_back();
        if (p.tied_to >= 0) continue;
        const std::vector<float> rows = file.read<float>(place(k, p)).values;
        if (static_cast<i64>(rows.size()) != 2 * p.count()) return {};
        gradient.assign(rows.begin(), rows.begin() + p.count());
        weight.assign(rows.begin() + p.count(), rows.end());
        gradient.resize(p.stored()), weight.resize(p.stored());
      }
    }
    if (reference.whole.hash() == file.attribute("hash")) return reference;
  } catch (const UserError&) {
  }
  return {};
}

}  // namespace lockstep
