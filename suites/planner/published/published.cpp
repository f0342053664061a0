#include "suites/planner/published/published.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "ref/error.hpp"
#include "suites/planner/compose.hpp"

namespace lockstep {
namespace {

// Composers by what they are for: they remember what plans share.
class Predictor {
 public:
  explicit Predictor(const PublishedGroup& g) : g_(g) {}

  Composer& of(const PublishedQuestion& q) {
    const ModelConfig& m = q.model;
    const std::string key = fmt::format("{} {} {} {} {} {} {} {} {} {} {} {}", m.vocab, m.hidden,
                                        m.intermediate, m.layers, m.heads, m.kv_heads, m.head_dim, m.tied,
                                        q.settings.batch, q.settings.seq, q.gpu_type, q.gpus);
    std::unique_ptr<Known>& known = known_[key];
    if (!known) {
      // The published step was taken, whatever we think of its memory: its time is asked for anyway.
      Cluster cluster = g_.clusters.at(q.gpu_type);
      cluster.devices = q.gpus, cluster.memory = cluster.host_memory = cluster.disk_bytes = 1e18;
      known = std::make_unique<Known>(q, std::move(cluster));
    }
    return known->composer;
  }

 private:
  struct Known {
    ModelConfig model;
    Settings settings;
    Cluster cluster;
    Composer composer;
    Known(const PublishedQuestion& q, Cluster c)
        : model(q.model), settings(q.settings), cluster(std::move(c)), composer(model, settings, cluster) {}
  };
  const PublishedGroup& g_;
  std::map<std::string, std::unique_ptr<Known>> known_;
};

// A layer's forward and backward alone: what a second layer adds to a step of one microbatch.
double layer_seconds(Predictor& predictor, PublishedQuestion q) {
  q.settings.batch = q.plan.number("dp") * q.plan.number("micro");
  double seconds[2];
  for (const i64 layers : {1, 2}) {
    q.model.layers = layers;
    const StagePrediction s = predictor.of(q).predict(q.plan).stages.front();
    seconds[layers - 1] = s.compute;
    for (const Axis within : {Axis::tp, Axis::cp}) seconds[layers - 1] += s.exposed[static_cast<int>(within)];
  }
  return seconds[1] - seconds[0];
}

// What a source would have printed for a step of so many seconds. Nothing: a metric that is none of ours.
std::optional<double> in_metric(const std::string& metric, double seconds, const PublishedQuestion& q,
                                const Cluster& cluster) {
  const double batch = static_cast<double>(q.settings.batch), gpus = static_cast<double>(q.gpus);
  const double flops = counted_flops(q.counted, batch);
  if (metric == "iter_s") return seconds;
  if (metric == "samples_per_s") return batch / seconds;
  if (metric == "tokens_per_s_per_gpu") return batch * static_cast<double>(q.settings.seq) / seconds / gpus;
  if (metric == "model_tflops_per_gpu") return flops / seconds / gpus / 1e12;
  if (metric == "mfu_pct") return 100 * flops / seconds / gpus / cluster.flops;
  if (metric == "hw_tflops_per_gpu")
    return (flops + recomputed_flops(q.counted, batch, q.recomputed)) / seconds / gpus / 1e12;
  return {};
}

bool one_of(const std::string& word, const std::vector<std::string>& words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

void score_row(const PublishedGroup& g, Predictor& predictor, ScoredRow& s) {
  std::string words;
  s.row = read_by_rules(g, s.row, words, s.unscored);
  if (!s.unscored.empty()) return;
  const std::optional<PublishedQuestion> q = ask(g, s.row, words, s.unscored);
  if (!q) return;
  s.plan = q->plan.line();
  const Cluster& cluster = g.clusters.at(q->gpu_type);
  const std::string &metric = s.row.text("metric"), &value = s.row.text("value");
  if (metric == "layer_fwd_bwd_ms") {
    s.predicted = 1e3 * layer_seconds(predictor, *q), s.published = s.row.positive("value");
    return;
  }
  const bool status = metric == "status", memory = metric == "peak_memory";
  if (!status && !memory && !in_metric(metric, 1, *q, cluster)) return void(s.unscored = "metric " + metric);
  if (status && !one_of(value, g.fits) && !one_of(value, g.full)) return void(s.unscored = "status " + value);
  const Prediction p = predictor.of(*q).weigh(q->plan);
  const double needed = needs(p, cluster, Run{q->model, q->settings, q->plan}.mesh())[0];
  double arena = 0;
  for (const StagePrediction& stage : p.stages) arena = std::max(arena, static_cast<double>(stage.live[0]));
  s.memory = g.memory_of_process ? needed : arena;
  s.fits = needed <= cluster.memory;
  if (!memory) s.fits_published = !status || one_of(value, g.fits);
  if (memory)
    s.memory_published = s.row.positive("value") * g.memory_unit;
  else if (!s.row.text("mem_gib").empty())
    s.memory_published = s.row.positive("mem_gib") * g.memory_unit;
  if (status || memory) return;
  s.predicted = *in_metric(metric, p.seconds, *q, cluster), s.published = s.row.positive("value");
  s.rate = *in_metric("tokens_per_s_per_gpu", p.seconds, *q, cluster);
  // Every metric is a time or its inverse.
  s.rate_published =
      metric == "iter_s" ? s.rate * s.predicted / s.published : s.rate * s.published / s.predicted;
}

// What makes two rows the same run.
std::string run_of(const PublishedRow& row) {
  std::string key;
  for (const auto& [column, word] : row.words)
    if (!one_of(column, {"metric", "value", "mem_gib", "notes", "params_b"})) key += column + word + " ";
  return key;
}

void mark_fitted(const PublishedGroup& g, std::vector<ScoredRow>& rows) {
  for (const FittedRows& f : g.fitted) {
    i64 nth = 0;
    for (ScoredRow& s : rows) {
      if (!f.which.has_words_of(s.row)) continue;
      ++nth;
      const std::vector<i64>& numbers = f.which.rows;
      const bool by_number =
          numbers.empty() || std::find(numbers.begin(), numbers.end(), s.row.number) != numbers.end();
      s.fitted |= by_number && (f.which.every == 0 || nth % f.which.every == f.which.first % f.which.every);
    }
  }
}

std::vector<Ranked> rank(const std::vector<const ScoredRow*>& rows) {
  std::map<std::string, std::array<std::vector<double>, 2>> groups;
  for (const ScoredRow* s : rows) {
    if (s->rate <= 0) continue;
    auto& [predicted, published] = groups[fmt::format("{} on {} GPUs, {} tokens", s->row.text("model"),
                                                      s->row.text("gpus"), s->row.text("seq"))];
    predicted.push_back(s->rate), published.push_back(s->rate_published);
  }
  std::vector<Ranked> all;
  for (const auto& [which, rates] : groups)
    if (rates[0].size() > 1)
      all.push_back(
          {which, rates[0].size(), regret(rates[0], rates[1]), rank_correlation(rates[0], rates[1])});
  return all;
}

SourceScore sum_up(const std::string& source, const std::vector<ScoredRow>& all) {
  SourceScore out;
  out.source = source;
  std::vector<const ScoredRow*> rows;
  std::map<std::string, std::set<bool>> known;  // by run: whether it fitted
  bool status = false;
  for (const ScoredRow& s : all) {
    if (s.row.text("source") != source) continue;
    ++out.rows;
    if (!s.unscored.empty()) {
      ++out.unscored[s.unscored];
      continue;
    }
    ++out.scored, out.fitted += s.fitted;
    if (s.predicted > 0) (s.fitted ? out.fitted_errors : out.errors).push_back(s.error());
    if (s.memory_published > 0 && !s.fitted) out.memory_errors.push_back(s.memory_error());
    if (s.fits_published) known[run_of(s.row)].insert(*s.fits_published);
    status |= s.row.text("metric") == "status";
    rows.push_back(&s);
  }
  out.ranked = rank(rows);
  if (!status) return out;
  out.fits.emplace();
  for (const ScoredRow* s : rows) {
    if (!s->fits_published) continue;
    // A run that is in the table both as done and as out of memory says nothing.
    if (known[run_of(s->row)].size() == 2)
      ++out.contradictory;
    else
      out.fits->add(*s->fits, *s->fits_published);
  }
  return out;
}

}  // namespace

double ScoredRow::error() const { return std::abs(predicted / published - 1); }
double ScoredRow::memory_error() const { return std::abs(memory / memory_published - 1); }

double SourceScore::median_regret() const {
  std::vector<double> x;
  for (const Ranked& r : ranked) x.push_back(r.regret);
  return median_of(x);
}
double SourceScore::median_rank() const {
  std::vector<double> x;
  for (const Ranked& r : ranked) x.push_back(r.rank);
  return median_of(x);
}

std::vector<std::string> missed(const Bar& bar, const SourceScore& s) {
  std::vector<std::string> list;
  const auto at_most = [&](const char* what, const std::optional<double>& most, double is, std::size_t of) {
    if (most && (of == 0 || 100 * is > *most))
      list.push_back(of ? fmt::format("{} {:.2f} % is above {} %", what, 100 * is, *most)
                        : fmt::format("{}: nothing was scored", what));
  };
  const auto at_least = [&](const char* what, const std::optional<double>& least, double is, double unit) {
    if (least && unit * is < *least)
      list.push_back(fmt::format("{} {:.3g} is below {}", what, unit * is, *least));
  };
  const std::size_t n = s.errors.size(), m = s.memory_errors.size();
  at_most("mean error", bar.mean, mean_of(s.errors), n);
  at_most("median error", bar.median, median_of(s.errors), n);
  at_most("worst error", bar.worst, largest_of(s.errors), n);
  at_most("memory's mean error", bar.memory_mean, mean_of(s.memory_errors), m);
  at_most("memory's median error", bar.memory_median, median_of(s.memory_errors), m);
  at_most("memory's worst error", bar.memory_worst, largest_of(s.memory_errors), m);
  at_most("regret", bar.regret, s.median_regret(), s.ranked.size());
  at_least("rank correlation", bar.rank, s.median_rank(), 1);
  at_least("precision of what fits, %", bar.precision, s.fits ? s.fits->precision() : 0, 100);
  at_least("recall of what fits, %", bar.recall, s.fits ? s.fits->recall() : 0, 100);
  return list;
}

ScoredGroup score(const PublishedGroup& g, const std::string& only,
                  const std::function<void(const PublishedRow&)>& progress) {
  ScoredGroup out{&g, {}, {}};
  for (const PublishedRow& row : g.rows) {
    ScoredRow s;
    s.row = row;
    out.rows.push_back(std::move(s));
  }
  mark_fitted(g, out.rows);
  if (!only.empty())
    std::erase_if(out.rows, [&](const ScoredRow& s) { return s.row.text("source") != only; });
  Predictor predictor(g);
  std::vector<std::string> sources;
  for (std::size_t i = 0; i < out.rows.size(); ++i) {
    try {
      score_row(g, predictor, out.rows[i]);
    } catch (const UserError& e) {
      const std::string place = out.rows[i].row.place();
      const bool placed = std::string(e.what()).rfind(place, 0) == 0;
      throw UserError(placed ? e.what() : fmt::format("{}: {}", place, e.what()));
    }
    const std::string& source = out.rows[i].row.text("source");
    if (!one_of(source, sources)) sources.push_back(source);
    progress(out.rows[i].row);
  }
  for (const std::string& source : sources) {
    SourceScore s = sum_up(source, out.rows);
    if (const auto bar = g.bars.find(source); bar != g.bars.end()) s.missed = missed(bar->second, s);
    out.sources.push_back(std::move(s));
  }
  return out;
}

}  // namespace lockstep
