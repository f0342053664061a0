// What is said of predicted against published figures, and what a published figure counts.
#pragma once
#include <vector>

#include "ref/config.hpp"
#include "ref/settings.hpp"

namespace lockstep {

double mean_of(const std::vector<double>&);  // 0 of nothing, as the next two
double median_of(std::vector<double>);       // of an even number, the mean of the two in the middle
double largest_of(const std::vector<double>&);

// Spearman's rank correlation, ties at their mean rank (Spearman 1904). 0: fewer than two, or all tied.
double rank_correlation(const std::vector<double>& x, const std::vector<double>& y);

// The part of the best published rate that is lost by taking what is predicted to be the fastest.
double regret(const std::vector<double>& predicted, const std::vector<double>& published);

struct Detection {
  i64 right = 0, wrong = 0, missed = 0;  // said and so; said and not so; not said though so
  void add(bool said, bool so);
  double precision() const;  // 1 where nothing was said, or missed
  double recall() const;
};

// Of a transformer as a paper counts its operations: a model, its MLP's width and matmuls (2: GELU, 3:
// SwiGLU).
struct CountedModel {
  double layers, hidden, kv_width, ffn, vocab, seq;
  int mlp_matmuls;
};
// Operations of a step of so many sequences: 6 for each token and weight of a matmul, the head's included,
// and 12 L s^2 h of attention, not halved for being causal. Of a GPT that is 72 B L s h^2 (1 + s/6h +
// V/12hL) (Narayanan et al. 2021, section 5.1, without recomputation).
double counted_flops(const CountedModel&, double sequences);
// What recomputation adds: every layer's forward once more, or the product of attention's matrices alone.
enum class Recomputed { nothing, attention, layers };
double recomputed_flops(const CountedModel&, double sequences, Recomputed);

}  // namespace lockstep
