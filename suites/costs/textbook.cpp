#include "suites/costs/textbook.hpp"

#include <algorithm>
#include <cmath>

#include "suites/costs/textbook_book.hpp"

namespace lockstep {

bool TextbookRow::equal() const {
  double all = textbook;
  for (const Difference& d : differences) all += d.much;
  return all == here;  // bytes and binary fractions of them: nothing is rounded
}

Book::Book(const Prepared& run)
    : prepared(run),
      plan(run.run.plan),
      model(run.run.model),
      B(static_cast<double>(run.run.settings.batch)),
      T(static_cast<double>(run.run.settings.seq)),
      D(static_cast<double>(model.hidden)),
      L(static_cast<double>(model.layers)),
      d(plan.number("dp")),
      t(plan.number("tp")),
      p(plan.number("pp")),
      b(plan.number("micro")),
      m(B / d / b) {}

bool Book::only(std::set<std::string> words) const {
  words.insert("micro");
  return std::all_of(plan_words().begin(), plan_words().end(),
                     [&](const Word& w) { return words.count(w.name) || plan.text(w.name) == w.fallback; });
}

bool Book::says(const std::string& word, const std::string& value) const {
  const auto at = plan.words().find(word);
  return at != plan.words().end() && at->second == value;
}

double Book::peak(Kind kind) const {
  return static_cast<double>(peaks(prepared.traces[0]).by_kind[static_cast<std::size_t>(kind)]);
}

std::vector<Bundle> bundles(const Book& k) {
  const ModelConfig& c = k.model;
  const double leaves = static_cast<double>(k.prepared.run.settings.leaves), V = static_cast<double>(c.vocab);
  const double table = V * k.D, padded = std::ceil(V / leaves) * leaves * k.D;
  const double heads = static_cast<double>(c.heads * c.head_dim);
  const double kv_heads = static_cast<double>(c.kv_heads * c.head_dim);
  const double layer =
      2 * k.D + k.D * (2 * heads + 2 * kv_heads) + 3 * k.D * static_cast<double>(c.intermediate);
  std::vector<Bundle> list{{Bundle::Of::embedding, table, padded}};
  for (i64 l = 0; l < c.layers; ++l) list.push_back({Bundle::Of::layer, layer, layer});
  list.push_back({Bundle::Of::final_norm, k.D, k.D});
  list.push_back({Bundle::Of::head, table, padded, c.tied});
  return list;
}

double parameters(const std::vector<Bundle>& all) {
  double n = 0;
  for (const Bundle& u : all) n += u.tied ? 0 : u.bare;
  return n;
}

void differ(TextbookRow& row, const std::string& why, double much) {
  if (much != 0) row.differences.push_back({why, much});
}

std::vector<TextbookRow> textbook_rows(const Prepared& run) {
  const Book book(run);
  std::vector<TextbookRow> rows;
  state_rows(book, rows);
  if (run.run.settings.weight_bytes == 4) layer_rows(book, rows);
  return rows;
}

}  // namespace lockstep
