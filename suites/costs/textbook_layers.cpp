// The textbook on what is done layer by layer: pipelines, tensor parallelism, checkpointing.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "suites/costs/textbook_book.hpp"

namespace lockstep {
namespace {

// Most microbatches (through one chunk of layers) whose backward, or its later part, is still to come,
// counted in the trace.
double in_flight(const Trace& trace) {
  int now = 0, most = 0;
  for (const Trace::Event& e : trace.events) {
    if (e.what != Trace::Event::action) continue;
    if (!std::strcmp(e.name, "forward")) most = std::max(most, ++now);
    if (!std::strcmp(e.name, "backward") || !std::strcmp(e.name, "weight gradients")) --now;
  }
  return most;
}

// Narayanan et al. 2019 (PipeDream), section 3.2: stage i is p - i forwards ahead, and m is all there are.
// Huang et al. 2019 (GPipe), section 2.3: all m. Narayanan et al. 2021 (Megatron-LM), section 2.2, with v
// chunks: twice as many ahead, and all but the last chunk's p; on stage 0 L (1 + (p-1)/(p v)) layers, as
// Korthikanti et al. 2022 say in section 4.2.3. Qi et al. 2023 (Zero Bubble), section 2.1: with ZB-H1 every
// stage holds what 1F1B's first one does, some of it for weight gradients alone.
void pipeline(const Book& k, std::vector<TextbookRow>& rows) {
  if (k.p == 1) return;
  for (int i = 0; i < k.p; ++i) {
    const double p = k.p, v = k.plan.number("virtual");
    TextbookRow row{fmt::format("stage {}", i),
                    "microbatches in flight",
                    "",
                    "",
                    0,
                    in_flight(k.prepared.traces[k.prepared.mesh.rank_of(0, 0, i)]),
                    {},
                    1};
    if (k.says("schedule", "1f1b")) {
      row.form = "min(m, p-i)", row.source = "Narayanan et al. 2019, section 3.2";
      row.textbook = std::min(k.m, p - i);
    } else if (k.says("schedule", "gpipe")) {
      row.form = "m", row.source = "Huang et al. 2019, section 2.3";
      row.textbook = k.m;
    } else if (k.says("schedule", "interleaved")) {
      row.what = "chunks of L/(p v) layers in flight";
      row.form = "min(v m, 2 (p-1-i) + (v-1) p + 1)", row.source = "Narayanan et al. 2021, section 2.2";
      row.textbook = std::min(v * k.m, 2 * (p - 1 - i) + (v - 1) * p + 1);
    } else if (k.says("schedule", "zero-bubble")) {
      row.what = "microbatches in flight, or waiting for their weight gradients";
      row.form = "min(m, p)", row.source = "Qi et al. 2023, section 2.1";
      row.textbook = std::min(k.m, p);
    } else {
      return;
    }
    rows.push_back(row);
  }
}

// Shoeybi et al. 2019 (Megatron-LM), section 3: two sums forward and two backward. Korthikanti et al. 2022,
// section 4.2.2: each becomes a reduce_scatter and an all_gather, and the two gathered inputs are gathered
// again in backward.
void tensor(const Book& k, std::vector<TextbookRow>& rows) {
  if (k.t == 1 || !k.only({"tp", "sp"})) return;
  const bool split = k.plan.number("sp") == 1;
  std::map<Verb, double> count;
  const auto whole = static_cast<i64>(k.b * k.T * k.D / (split ? k.t : 1));
  for (const Posted& m : k.prepared.posted[0])
    if (m.axis == Axis::tp && m.microbatch == 0 && m.elements == whole &&
        std::string(m.what).starts_with("layers.0."))
      ++count[m.verb];
  const auto say = [&](Verb verb, const char* form, double value) {
    rows.push_back(
        {"",
         fmt::format("{} of {} a layer and microbatch", verb_name(verb), split ? "b T/t D" : "b T D"),
         form,
         split ? "Korthikanti et al. 2022, section 4.2.2" : "Shoeybi et al. 2019, section 3",
         value,
         count[verb],
         {},
         1});
  };
  if (!split) return say(Verb::all_reduce, "2 + 2", 4);
  say(Verb::reduce_scatter, "2 + 2", 4);
  say(Verb::all_gather, "2 + 2 + 2", 6);
}

// Chen et al. 2016, section 4.1, a layer being a segment; Korthikanti et al. 2022, section 5: s b h elements
// a layer, 2 bytes each there and 4 here.
void checkpointing(const Book& k, std::vector<TextbookRow>& rows) {
  if (!k.says("ckpt", "full") || !k.only({"ckpt"})) return;
  TextbookRow row{"",
                  "bytes of activations kept",
                  "4 s b h L",
                  "Korthikanti et al. 2022, section 5",
                  4 * k.T * k.b * k.D * k.L,
                  k.peak(Kind::activations),
                  {},
                  1};
  differ(row, "what the head is given, kept too", 4 * k.T * k.b * k.D);
  rows.push_back(row);
}

}  // namespace

void layer_rows(const Book& k, std::vector<TextbookRow>& rows) {
  tensor(k, rows);
  pipeline(k, rows);
  checkpointing(k, rows);
}

}  // namespace lockstep
