// Groups of published measurements against what the planner predicts for their rows.
#pragma once
#include <functional>

#include "suites/planner/published/question.hpp"

namespace lockstep {

// One row. Numbers are of its metric, as published; 0: it has none.
struct ScoredRow {
  PublishedRow row;
  bool fitted = false;
  std::string unscored;  // why
  std::string plan;
  double predicted = 0, published = 0;
  double memory = 0, memory_published = 0;  // bytes
  std::optional<bool> fits, fits_published;
  double rate = 0, rate_published = 0;  // tokens a second and GPU
  double error() const;                 // |predicted / published - 1|
  double memory_error() const;
};

// Of one (model, GPU count, sequence length): how well the predicted rates rank the published ones.
struct Ranked {
  std::string which;
  std::size_t plans = 0;
  double regret = 0, rank = 0;
};

// Of the rows of one source. Errors are of rows that nothing was fitted on.
struct SourceScore {
  std::string source;
  i64 rows = 0, scored = 0, fitted = 0;
  std::vector<double> errors, fitted_errors, memory_errors;
  std::map<std::string, i64> unscored;  // by reason
  std::vector<Ranked> ranked;
  std::optional<Detection> fits;
  i64 contradictory = 0;            // rows of runs that are published both as done and as out of memory
  std::vector<std::string> missed;  // bars, in words
  double median_regret() const;     // over `ranked`, as the next
  double median_rank() const;
};

struct ScoredGroup {
  const PublishedGroup* group;
  std::vector<ScoredRow> rows;
  std::vector<SourceScore> sources;
};

// Keeps a reference. `only`: of this source alone, if not "". `progress` is called after each row.
ScoredGroup score(const PublishedGroup&, const std::string& only,
                  const std::function<void(const PublishedRow&)>& progress);

// The bars that a source misses, in words.
std::vector<std::string> missed(const Bar&, const SourceScore&);

// A table of sources, Llama-shaped apart from GPT-shaped; what was fitted, not scored and far off.
std::string scores_text(const std::vector<ScoredGroup>&);
std::string rows_text(const ScoredGroup&);

}  // namespace lockstep
