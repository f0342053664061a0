#include "suites/textbook.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>

namespace lockstep {

bool TextbookRow::equal() const {
  double all = textbook;
  for (const Difference& d : differences) all += d.much;
  return all == here;  // whole bytes and halves of them: no rounding
}

namespace {

// Of an array of `count` elements in all, float32.
constexpr double kWeight = 4, kGradient = 4, kMoments = 8;

// The numbers of a run that the papers' formulas are made of.
struct Book {
  const Prepared& p;
  const Plan& plan;
  const ModelConfig& model;
  double batch, T, D, L;  // sequences a step, tokens of each, width, layers
  int d, p_stages, t;     // ranks on each axis
  double b, m;            // sequences of a microbatch, microbatches

  explicit Book(const Prepared& prepared)
      : p(prepared),
        plan(p.run.plan),
        model(p.run.model),
        batch(static_cast<double>(p.run.settings.batch)),
        T(static_cast<double>(p.run.settings.seq)),
        D(static_cast<double>(model.hidden)),
        L(static_cast<double>(model.layers)),
        d(plan.number("dp")),
        p_stages(plan.number("pp")),
        t(plan.number("tp")),
        b(plan.number("micro")),
        m(batch / d / b) {}

  // Whether all words but these, and micro, have their fallback: the strategy is by itself.
  bool only(std::set<std::string> words) const {
    words.insert("micro");
    return std::all_of(plan_words().begin(), plan_words().end(),
                       [&](const Word& w) { return words.count(w.name) || plan.text(w.name) == w.fallback; });
  }
  bool says(const std::string& word, const std::string& value) const {
    const auto& words = plan.words();
    const auto at = words.find(word);
    return at != words.end() && at->second == value;
  }
  i64 peak(Kind kind, int rank = 0) const {
    return peaks(p.traces[rank]).by_kind[static_cast<std::size_t>(kind)];
  }
};

// What is gathered and reduced together, in elements: without pads, and as stored.
struct Bundle {
  double bare, stored;
  bool head_of_tie = false;  // the embedding is its weight, but its gradient is summed apart
  bool layer = false;
};
std::vector<Bundle> bundles(const Book& k) {
  const ModelConfig& c = k.model;
  const double leaves = static_cast<double>(k.p.run.settings.leaves), vocab = static_cast<double>(c.vocab);
  const double table = vocab * k.D, padded = std::ceil(vocab / leaves) * leaves * k.D;
  const double heads = static_cast<double>(c.heads * c.head_dim),
               kv = static_cast<double>(c.kv_heads * c.head_dim);
  const double layer = 2 * k.D + k.D * (2 * heads + 2 * kv) + 3 * k.D * static_cast<double>(c.intermediate);
  std::vector<Bundle> list{{table, padded}};
  for (i64 l = 0; l < c.layers; ++l) list.push_back({layer, layer, false, true});
  list.push_back({k.D, k.D});
  list.push_back({table, padded, c.tied, false});
  return list;
}
double parameters(const std::vector<Bundle>& all) {
  double n = 0;
  for (const Bundle& u : all) n += u.head_of_tie ? 0 : u.bare;
  return n;
}

void differ(TextbookRow& row, const std::string& why, double much) {
  if (much != 0) row.differences.push_back({why, much});
}

// Rajbhandari et al. 2020 (ZeRO), sections 3.1 and 5: a rank holds 16 bytes a parameter (in float32), of
// which stage 1 shares the moments among d ranks, stage 2 also the gradients, stage 3 also the weights.
void model_states(const Book& k, std::vector<TextbookRow>& rows) {
  if (!k.only({"dp", "zero"})) return;
  const int stage = k.plan.number("zero"), d = k.d;
  static constexpr const char* forms[] = {"4 + 4 + 8 = 16", "4 + 4 + 8/d", "4 + 4/d + 8/d", "16/d"};
  const double weights = stage > 2 ? kWeight / d : kWeight, gradients = stage > 1 ? kGradient / d : kGradient;
  const double moments = stage > 0 ? kMoments / d : kMoments;
  const auto all = bundles(k);
  const double n = parameters(all);
  TextbookRow row{
      "",
      "bytes a parameter: weights, gradients, moments",
      forms[stage],
      "Rajbhandari et al. 2020, section 5",
      (weights + gradients + moments) * n,
      static_cast<double>(k.peak(Kind::weights) + k.peak(Kind::gradients) + k.peak(Kind::optimizer)),
      {},
      n};
  // Exact mode sums gradients in a tree of fixed shape: so many partial sums wait at once.
  const double leaves = stage > 1 ? k.m : k.batch / d, slots = std::max(1.0, std::ceil(std::log2(leaves)));
  double tie = 0, pads = 0;
  for (const Bundle& u : all) {
    const double shared = stage > 0 ? std::ceil(u.stored / d) * d : u.stored;  // d equal shards
    if (u.head_of_tie) {
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

// Rajbhandari et al. 2020, section 7: 2 psi elements for a reduce_scatter and an all_gather (what an
// all_reduce is made of), and stage 3 gathers twice; with several microbatches what is done for each, each
// time.
void volume(const Book& k, std::vector<TextbookRow>& rows) {
  if (k.d == 1 || !k.only({"dp", "zero"})) return;
  const int stage = k.plan.number("zero");
  const auto all = bundles(k);
  const double n = parameters(all), reduced = stage > 1 ? k.m : 1, gathered = stage > 2 ? 2 * k.m : 1;
  double here = 0;
  for (const Posted& m : k.p.posted[0])
    if (m.axis == Axis::dp) here += static_cast<double>(m.elements) * (m.verb == Verb::all_reduce ? 2 : k.d);
  static constexpr const char* forms[] = {"2", "1 + 1", "m + 1", "m (1 + 2)"};
  TextbookRow row{"",
                  "elements a parameter reduced and gathered over dp",
                  forms[stage],
                  "Rajbhandari et al. 2020, section 7",
                  (reduced + gathered) * n,
                  here,
                  {},
                  n};
  double ends = 0, tie = 0, pads = 0;
  for (const Bundle& u : all) {
    const double shared = stage > 0 ? std::ceil(u.stored / k.d) * k.d : u.stored;
    const double reductions = stage > 0 ? reduced : 2, gathers = stage == 0 || u.head_of_tie ? 0 : gathered;
    // Used in one direction only; a tied table is used by both ends.
    const bool once = stage > 2 && !u.layer && !(k.model.tied && &u == &all.front());
    if (once && gathers > 0) ends -= k.m * u.bare;
    if (u.head_of_tie) tie += reductions * u.bare;
    pads += (reductions + (once ? gathers / 2 : gathers)) * (shared - u.bare);
  }
  differ(row, "embedding, final norm and head are gathered once", ends);
  differ(row, "a tied head's gradient apart", tie);
  differ(row, "pads of vocabulary and shards", pads);
  rows.push_back(row);
}

// Most microbatches (through one chunk of layers) whose backward is still to come, as the traced rank does
// them.
double in_flight(const Trace& trace) {
  int now = 0, most = 0;
  for (const Trace::Event& e : trace.events) {
    if (e.what != Trace::Event::action) continue;
    if (!std::strcmp(e.name, "forward")) most = std::max(most, ++now);
    if (!std::strcmp(e.name, "backward")) --now;
  }
  return most;
}

// Narayanan et al. 2019 (PipeDream), section 3.2: stage i is p - i forwards ahead, and m is all there are.
// Huang et al. 2019 (GPipe), section 2.3: all m. Narayanan et al. 2021 (Megatron-LM), section 2.2, with v
// chunks: twice as many ahead, and all but the last chunk's p; on stage 0 L (1 + (p-1)/(p v)) layers, as
// Korthikanti et al. 2022 say in section 4.2.3.
void pipeline(const Book& k, std::vector<TextbookRow>& rows) {
  if (k.p_stages == 1) return;
  for (int i = 0; i < k.p_stages; ++i) {
    const double p = k.p_stages, v = k.plan.number("virtual");
    TextbookRow row{fmt::format("stage {}", i),
                    "microbatches in flight",
                    "",
                    "",
                    0,
                    in_flight(k.p.traces[k.p.mesh.rank_of(0, 0, i)]),
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
  for (const Posted& m : k.p.posted[0])
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
                  static_cast<double>(k.peak(Kind::activations)),
                  {},
                  1};
  differ(row, "what the head is given, kept too", 4 * k.T * k.b * k.D);
  rows.push_back(row);
}

// Ren et al. 2021 (ZeRO-Offload), section 3: each gradient goes to the host once a step and each weight comes
// back, 2 bytes each there and 4 here; the moments stay there.
void offload(const Book& k, std::vector<TextbookRow>& rows) {
  if (!k.says("offload", "optimizer") || !k.only({"offload"})) return;
  std::set<int> host;  // blocks
  double to_host = 0, back = 0;
  for (const Trace::Event& e : k.p.traces[0].events) {
    if (e.what == Trace::Event::take && e.kind == Kind::host) host.insert(e.block);
    if (e.what != Trace::Event::run || !std::string(e.name).starts_with("copy ")) continue;
    const bool to = host.count(e.views[0].block), from = host.count(e.views[1].block);
    const double bytes = e.numbers[0] * static_cast<double>(type_bytes(e.views[0].type));
    to_host += to && !from ? bytes : 0, back += from && !to ? bytes : 0;
  }
  double n = 0, pads = 0;
  for (const Bundle& u : bundles(k))
    if (!u.head_of_tie) n += u.bare, pads += u.stored - u.bare;
  const char* source = "Ren et al. 2021, section 3";
  TextbookRow there{"", "bytes a parameter copied to the host", "4", source, 4 * n, to_host, {}, n};
  differ(there, "the weight goes with its gradient: the host keeps none", 4 * n);
  differ(there, "pads of the vocabulary", 8 * pads);
  TextbookRow again{"", "bytes a parameter copied back", "4", source, 4 * n, back, {}, n};
  differ(again, "pads of the vocabulary", 4 * pads);
  TextbookRow kept{"",    "bytes a parameter kept on the host",    "8", source,
                   8 * n, static_cast<double>(k.peak(Kind::host)), {},  n};
  differ(kept, "two blocks of gradient and weight, 256 KiB each", 4 * 256 * 1024);
  differ(kept, "pads of the vocabulary", 8 * pads);
  rows.insert(rows.end(), {there, again, kept});
}

}  // namespace

std::vector<TextbookRow> textbook_rows(const Prepared& p) {
  const Book k(p);
  std::vector<TextbookRow> rows;
  model_states(k, rows);
  volume(k, rows);
  tensor(k, rows);
  pipeline(k, rows);
  checkpointing(k, rows);
  offload(k, rows);
  return rows;
}

}  // namespace lockstep
