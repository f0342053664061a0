// The textbook on weights, gradients and moments: data parallelism, ZeRO, offload.
#include <fmt/format.h>

#include <cmath>
#include <set>

#include "suites/costs/textbook_book.hpp"

namespace lockstep {
namespace {

// What is held of a parameter, in bytes: 4, 4, 8 in float32; 2, 2, 12 in bfloat16 with float32 master
// weights.
struct StateBytes {
  double weight, gradient, optimizer;
};
StateBytes held(const Settings& s) {
  const double weight = s.weight_bytes, gradient = s.gradient_bytes;
  return {weight, gradient, weight < 4 ? 12.0 : 8.0};
}

std::string form(const StateBytes& s, int stage) {
  const double all = s.weight + s.gradient + s.optimizer;
  if (stage == 0) return fmt::format("{}", all);
  if (stage == 1) return fmt::format("{} + {}/d", s.weight + s.gradient, s.optimizer);
  if (stage == 2) return fmt::format("{} + {}/d", s.weight, s.gradient + s.optimizer);
  return fmt::format("{}/d", all);
}

// Rajbhandari et al. 2020 (ZeRO), sections 3.1 and 5: a rank holds 16 bytes a parameter, in float32 and in
// bfloat16, of which stage 1 shares the moments among d ranks, stage 2 also the gradients, stage 3 also the
// weights.
void model_states(const Book& k, std::vector<TextbookRow>& rows) {
  if (!k.only({"dp", "zero"})) return;
  const int stage = k.plan.number("zero"), d = k.d;
  const Settings& settings = k.prepared.run.settings;
  const StateBytes bytes = held(settings);
  const double weights = bytes.weight / (stage > 2 ? d : 1), gradients = bytes.gradient / (stage > 1 ? d : 1);
  const double moments = bytes.optimizer / (stage > 0 ? d : 1);
  const auto all = bundles(k);
  const double n = parameters(all);
  TextbookRow row{"",
                  bytes.weight < 4
                      ? "in bfloat16, fast mode: bytes a parameter: weights, gradients, optimizer"
                      : "bytes a parameter: weights, gradients, moments",
                  form(bytes, stage),
                  "Rajbhandari et al. 2020, section 5",
                  (weights + gradients + moments) * n,
                  k.peak(Kind::weights) + k.peak(Kind::gradients) + k.peak(Kind::optimizer),
                  {},
                  n};
  // Exact mode sums gradients in a tree of fixed shape: so many partial sums wait at once.
  const double leaves = settings.fast ? 1 : stage > 1 ? k.m : k.B / d;
  const double slots = std::max(1.0, std::ceil(std::log2(leaves)));
  double tie = 0, pads = 0;
  for (const Bundle& u : all) {
    const double shared = stage > 0 ? std::ceil(u.stored / d) * d : u.stored;  // d equal shards
    if (u.tied) {
      tie += slots * gradients * u.bare;
      pads += slots * gradients * (shared - u.bare);
    } else {
      pads += (weights + slots * gradients + moments) * (shared - u.bare);
    }
  }
  differ(row, fmt::format("{} gradient slots of the summation tree, not 1", slots),
         (slots - 1) * gradients * n);
  differ(row, "a tied head's gradient apart", tie);
  differ(row, "pads of vocabulary and shards", pads);
  rows.push_back(row);
}

// Rajbhandari et al. 2020, section 7: each parameter is reduced once and gathered once (an all_reduce is
// both), with stage 3 gathered twice; what is done for a microbatch is done m times.
void volume(const Book& k, std::vector<TextbookRow>& rows) {
  if (k.d == 1 || !k.only({"dp", "zero"})) return;
  const int stage = k.plan.number("zero");
  const auto all = bundles(k);
  const double n = parameters(all), reduced = stage > 1 ? k.m : 1, gathered = stage > 2 ? 2 * k.m : 1;
  double here = 0;
  for (const Posted& m : k.prepared.posted[0])
    if (m.axis == Axis::dp) here += static_cast<double>(m.elements) * (m.verb == Verb::all_reduce ? 2 : k.d);
  TextbookRow row{"",
                  "elements a parameter reduced and gathered over dp",
                  stage > 2 ? "1 + 2" : "1 + 1",
                  "Rajbhandari et al. 2020, section 7",
                  (stage > 2 ? 3 : 2) * n,
                  here,
                  {},
                  n};
  double ends = 0, tie = 0, pads = 0;
  for (const Bundle& u : all) {
    const double shared = stage > 0 ? std::ceil(u.stored / k.d) * k.d : u.stored;
    const double reductions = stage > 0 ? reduced : 2, gathers = stage == 0 || u.tied ? 0 : gathered;
    // Used in one direction only; a tied table is used by both ends.
    const bool once =
        stage > 2 && u.of != Bundle::Of::layer && !(k.model.tied && u.of == Bundle::Of::embedding);
    if (once && gathers > 0) ends -= k.m * u.bare;
    if (u.tied) tie += reductions * u.bare;
    pads += (reductions + (once ? gathers / 2 : gathers)) * (shared - u.bare);
  }
  differ(row, fmt::format("reduced for each of {} microbatches", k.m), (reduced - 1) * n);
  differ(row, fmt::format("gathered for each of {} microbatches", k.m), stage > 2 ? (gathered - 2) * n : 0);
  differ(row, "embedding, final norm and head gathered once, not twice", ends);
  differ(row, "a tied head's gradient apart", tie);
  differ(row, "pads of vocabulary and shards", pads);
  rows.push_back(row);
}

// Ren et al. 2021 (ZeRO-Offload), section 3: each gradient goes to the host once a step and each weight comes
// back, 2 bytes each there and 4 here; the moments stay there. Or they rest on disk, and go to the host and
// back too (Rajbhandari et al. 2021, ZeRO-Infinity, section 5).
void offload(const Book& k, std::vector<TextbookRow>& rows) {
  if (!k.says("offload", "optimizer") || !k.only({"offload", "to"})) return;
  const bool on_disk = k.says("to", "disk");
  std::set<int> host, disk;  // blocks
  double to_host = 0, back = 0, from_disk = 0, to_disk = 0;
  bool step = false;
  for (const Trace::Event& e : k.prepared.traces[0].events) {
    if (e.what == Trace::Event::take && e.kind == Kind::host) host.insert(e.block);
    if (e.what == Trace::Event::take && e.kind == Kind::disk) disk.insert(e.block);
    step |= e.what == Trace::Event::step;
    if (e.what != Trace::Event::copy || !step) continue;
    const int to = e.views[0].block, from = e.views[1].block;
    const double bytes = e.numbers[0] * static_cast<double>(type_bytes(e.views[0].type));
    if (disk.count(from))
      from_disk += bytes;
    else if (disk.count(to))
      to_disk += bytes;
    else
      to_host += host.count(to) && !host.count(from) ? bytes : 0,
          back += host.count(from) && !host.count(to) ? bytes : 0;
  }
  double n = 0, pads = 0;
  for (const Bundle& u : bundles(k))
    if (!u.tied) n += u.bare, pads += u.stored - u.bare;
  const char* source = "Ren et al. 2021, section 3";
  TextbookRow there{"", "bytes a parameter copied to the host", "4", source, 4 * n, to_host, {}, n};
  differ(there, "the weight goes with its gradient: the host keeps none", 4 * n);
  differ(there, "pads of the vocabulary", 8 * pads);
  TextbookRow again{"", "bytes a parameter copied back", "4", source, 4 * n, back, {}, n};
  differ(again, "pads of the vocabulary", 4 * pads);
  rows.insert(rows.end(), {there, again});
  if (!on_disk) {
    TextbookRow kept{"", "bytes a parameter kept on the host", "8", source, 8 * n, k.peak(Kind::host), {}, n};
    differ(kept, "three blocks of gradient and weight, 256 KiB each", 6 * 256 * 1024);
    differ(kept, "pads of the vocabulary", 8 * pads);
    return rows.push_back(kept);
  }
  const char* below = "Rajbhandari et al. 2021, section 5";
  for (const auto& [what, here] : {std::pair{"kept on disk", k.peak(Kind::disk)},
                                   {"read from disk", from_disk},
                                   {"written to disk", to_disk}}) {
    TextbookRow row{"", fmt::format("bytes a parameter {}", what), "8", below, 8 * n, here, {}, n};
    differ(row, "pads of the vocabulary", 8 * pads);
    rows.push_back(row);
  }
}

}  // namespace

void state_rows(const Book& k, std::vector<TextbookRow>& rows) {
  model_states(k, rows);
  if (k.prepared.run.settings.weight_bytes < 4) return;
  volume(k, rows);
  offload(k, rows);
}

}  // namespace lockstep
