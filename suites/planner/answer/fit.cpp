#include "suites/planner/answer/fit.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "ref/params.hpp"
#include "suites/bytes.hpp"
#include "suites/planner/answer/in_sight.hpp"
#include "suites/text_table.hpp"

namespace lockstep {
namespace {

bool on_devices_alone(const Weighed& w) { return w.needs[1] == 0 && w.needs[2] == 0; }

// Whether these words may take this value; it is then all they may.
bool narrow(Values& values, const std::string& word, const std::string& value) {
  const auto it = values.find(word);
  if (it != values.end() && std::find(it->second.begin(), it->second.end(), value) == it->second.end())
    return false;
  values[word] = {value};
  return true;
}

std::string devices_text(i64 n) { return fmt::format("{} device{}", n, n == 1 ? "" : "s"); }

}  // namespace

Fit fit_on(i64 devices, const Question& q, const Values& given) {
  Cluster cluster = q.cluster;
  cluster.devices = devices;
  const Question on{q.model, q.settings, cluster};
  const Wanted fastest{.top = 1, .by_value = false};
  const Choices c = choose_in_sight(on, given, fastest);
  Fit f{devices, c.walked.legal, c.fitting, {}, {}, 0, c.least};
  if (!c.fit.empty()) f.best = c.fit.front();
  Values without = given;
  if (f.best && on_devices_alone(*f.best)) {
    f.alone = f.best;
  } else if (narrow(without, "offload", "none") && narrow(without, "activations", "device")) {
    const Choices alone = choose_in_sight(on, without, fastest);
    if (!alone.fit.empty())
      f.alone = alone.fit.front();
    else
      f.alone_lacks = alone.least;
  }
  return f;
}

std::vector<Fit> fits(const Question& q, const Values& given, const std::function<void(const Fit&)>& say) {
  std::vector<Fit> rows;
  for (i64 n = 1; rows.empty() || rows.back().devices < q.cluster.devices; n *= 2) {
    rows.push_back(fit_on(std::min(n, q.cluster.devices), q, given));
    say(rows.back());
  }
  return rows;
}

std::string bytes_text(const Question& q, bool markdown) {
  double parameters = 0;
  for (const Param& p : parameter_table(q.model, q.settings.leaves))
    if (p.tied_to < 0) parameters += static_cast<double>(p.count());
  TextTable table({"on one device", "bytes each", "GB", "GiB", "together, GB"}, 1);
  double sum = 0;
  const auto add = [&](const std::string& what, double bytes, bool each) {
    sum += bytes;
    table.add({what, each ? fmt::format("{:.0f}", bytes / parameters) : "",
               fmt::format("{:.1f}", bytes / 1e9), fmt::format("{:.1f}", bytes / kGiB),
               fmt::format("{:.0f}", sum / 1e9)});
  };
  const auto kind = [&](const char* line, Kind k) {
    return static_cast<double>(
        peak_bytes(Plan::parse(line), q.model, q.settings, 0)[static_cast<std::size_t>(k)]);
  };
  const auto bits = [](int bytes) { return bytes == 2 ? "16-bit" : "float32"; };
  add(fmt::format("weights, {}", bits(q.settings.weight_bytes)), kind("micro=1", Kind::weights), true);
  add(fmt::format("gradients, {}", bits(q.settings.gradient_bytes)), kind("micro=1", Kind::gradients), true);
  add(q.settings.weight_bytes == 2 ? "AdamW's moments and its own copy of the weights, float32"
                                   : "AdamW's moments, float32",
      kind("micro=1", Kind::optimizer), true);
  const double before = sum;
  add("activations of one sequence, only each layer's input kept",
      kind("micro=1 ckpt=full", Kind::activations), false);
  sum = before;
  add("activations of one sequence, all kept", kind("micro=1", Kind::activations), false);
  return fmt::format("{:.2f} billion parameters, {} sequences of {} tokens a step\n\n{}", parameters / 1e9,
                     q.settings.batch, q.settings.seq, table.text(markdown));
}

std::string fits_text(const std::vector<Fit>& rows, const Question& q, bool markdown) {
  TextTable table({"devices", "on the devices alone", "best plan", "step, s", "tokens/s", "% of peak",
                   "device, GiB", "host, GiB"},
                  0);
  const double tokens = static_cast<double>(q.settings.batch * q.settings.seq);
  for (const Fit& f : rows) {
    const std::string alone =
        !f.alone ? f.alone_lacks > 0 ? fmt::format("no, by {:.1f} GiB", f.alone_lacks / kGiB) : "no plan"
        : f.best->plan == f.alone->plan ? "yes"
                                        : fmt::format("yes, {:.0f} tokens/s", tokens / f.alone->seconds);
    if (!f.best) {
      table.add({std::to_string(f.devices), alone,
                 f.legal ? fmt::format("none fits, by {:.1f} GiB", f.lacks / kGiB) : "none is legal", "", "",
                 "", "", ""});
      continue;
    }
    const double flops = q.cluster.flops * static_cast<double>(f.devices);
    table.add({std::to_string(f.devices), alone, (markdown ? "`" : "") + f.best->plan + (markdown ? "`" : ""),
               fmt::format("{:.2f}", f.best->seconds), fmt::format("{:.0f}", tokens / f.best->seconds),
               fmt::format("{:.1f}", 100 * model_flops(q.model, q.settings) / f.best->seconds / flops),
               fmt::format("{:.1f}", f.best->needs[0] / kGiB),
               fmt::format("{:.1f}", f.best->needs[1] / kGiB)});
  }
  return table.text(markdown);
}

std::string least_text(const std::vector<Fit>& rows) {
  // From there on every larger number has a plan too.
  const auto from = [&](const auto& has) -> const Fit* {
    const Fit* least = nullptr;
    for (auto it = rows.rbegin(); it != rows.rend() && has(*it); ++it) least = &*it;
    return least;
  };
  const Fit* any = from([](const Fit& f) { return f.best.has_value(); });
  const Fit* alone = from([](const Fit& f) { return f.alone.has_value(); });
  if (!any) return fmt::format("does not fit {}\n", devices_text(rows.back().devices));
  const std::string first = fmt::format("fits from {} on", devices_text(any->devices));
  if (!alone) return first + ", with something kept on the host\n";
  return alone == any ? first + ", with nothing kept on the host\n"
                      : fmt::format("{}; with nothing kept on the host from {} on\n", first,
                                    devices_text(alone->devices));
}

}  // namespace lockstep
