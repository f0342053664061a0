// A group of published sources that one system measured, and how that system is modelled:
// suites/published/<group>.toml beside <group>.csv (suites/published/README.md explains each key).
#pragma once
#include <optional>

#include "suites/planner/cluster.hpp"
#include "suites/planner/published/rows.hpp"

namespace lockstep {

// Which rows: those that have one of these words in each of these columns; of them those with these numbers,
// or every n-th from the first.
struct RowSelector {
  std::map<std::string, std::vector<std::string>> words;
  std::vector<i64> rows;
  i64 every = 0, first = 1;
  bool has_words_of(const PublishedRow&) const;
};

// What a system means by its words: columns that are set, words of a plan, or why it is not scored.
struct RowRule {
  RowSelector when;
  std::map<std::string, std::string> set;
  std::string plan, skip;
};

struct FittedRows {
  RowSelector which;
  std::string what;  // the constants
};

// Percent, of the rows that nothing was fitted on, but for the rank correlation.
struct Bar {
  std::optional<double> mean, median, worst, memory_mean, memory_median, memory_worst;  // at most
  std::optional<double> regret;                                                         // at most
  std::optional<double> rank, precision, recall;                                        // at least
};

struct PublishedGroup {
  std::string file, name;
  bool gpt = false;               // an MLP of two matmuls
  i64 vocab_multiple = 1;         // a vocabulary is padded to this, times tp
  bool tied = true;               // unless a row says otherwise
  double memory_unit = 0;         // bytes of one that the column mem_gib counts
  bool memory_of_process = true;  // what is held beside the arena counts in that column
  std::vector<PublishedRow> rows;
  std::vector<RowRule> rules;
  std::map<std::string, Cluster> clusters;  // by the word of the column gpu_type
  std::vector<FittedRows> fitted;
  std::vector<std::string> fits = {"success"}, full = {"OOM"};  // words of the metric `status`
  std::map<std::string, Bar> bars;                              // by source
};

// UserError: a file that is missing, a key that is unknown, missing or impossible, with file and line.
PublishedGroup load_published_group(const std::string& toml_path);

}  // namespace lockstep
