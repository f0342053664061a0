#include "suites/planner/published/rows.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>

#include "parallel/plan.hpp"
#include "ref/error.hpp"

namespace lockstep {

const std::vector<std::string>& published_columns() {
  static const std::vector<std::string> columns = {
      "source", "model",  "params_b", "layers",  "hidden",  "heads",    "kv_heads",    "head_dim",
      "ffn",    "vocab",  "tied",     "seq",     "gpus",    "gpu_type", "dp",          "tp",
      "pp",     "cp",     "vpp",      "zero",    "offload", "act_ckpt", "micro_batch", "global_batch",
      "dtype",  "metric", "value",    "mem_gib", "notes"};
  return columns;
}

namespace {

// The fields of a line. `open`: a quote was not closed.
std::vector<std::string> fields(const std::string& line, bool& open) {
  std::vector<std::string> out(1);
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (c == '"' && quoted && i + 1 < line.size() && line[i + 1] == '"')
      out.back() += line[++i];
    else if (c == '"')
      quoted = !quoted;
    else if (c == ',' && !quoted)
      out.emplace_back();
    else if (c != '\r')
      out.back() += c;
  }
  open = quoted;
  return out;
}

template <class Number>
bool says(const std::string& text, Number& value) {
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && at == end;
}

}  // namespace

const std::string& PublishedRow::text(const std::string& column) const {
  static const std::string nothing;
  const auto it = words.find(column);
  return it == words.end() ? nothing : it->second;
}

i64 PublishedRow::whole(const std::string& column, i64 fallback) const {
  const std::string& word = text(column);
  if (word.empty()) return fallback;
  i64 value = 0;
  if (!says(word, value) || value < 0)
    throw UserError(fmt::format("{}: {} is `{}`; it must be a whole number", place(), column, word));
  return value;
}

double PublishedRow::positive(const std::string& column) const {
  double value = 0;
  if (!says(text(column), value) || !std::isfinite(value) || value <= 0)
    throw UserError(
        fmt::format("{}: {} is `{}`; it must be a number greater than 0", place(), column, text(column)));
  return value;
}

std::string PublishedRow::place() const { return fmt::format("{}:{}", file, line); }

std::vector<PublishedRow> read_published_rows(const std::string& path) {
  std::ifstream in(path);
  if (!in) throw UserError(fmt::format("{}: no such file; a group's rows lie beside its .toml", path));
  std::vector<std::string> columns;
  std::vector<PublishedRow> rows;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (line.empty() || line[0] == '#') continue;
    bool open = false;
    const std::vector<std::string> found = fields(line, open);
    const std::string place = fmt::format("{}:{}", path, number);
    if (open) throw UserError(fmt::format("{}: a quote is not closed", place));
    if (columns.empty()) {
      const std::vector<std::string>& known = published_columns();
      for (const std::string& name : columns = found)
        if (std::find(known.begin(), known.end(), name) == known.end())
          throw UserError(fmt::format("{}: no column `{}`{}", place, name, did_you_mean(name, known)));
      for (const char* name : {"source", "model", "metric", "value"})
        if (std::find(columns.begin(), columns.end(), name) == columns.end())
          throw UserError(fmt::format("{}: the column {} is missing", place, name));
      continue;
    }
    if (found.size() != columns.size())
      throw UserError(
          fmt::format("{}: {} fields, but {} columns are named", place, found.size(), columns.size()));
    PublishedRow& row = rows.emplace_back(PublishedRow{path, number, 0, {}});
    row.number = static_cast<i64>(rows.size());
    for (std::size_t c = 0; c < found.size(); ++c)
      if (!found[c].empty()) row.words[columns[c]] = found[c];
  }
  if (columns.empty()) throw UserError(fmt::format("{}: no line names the columns", path));
  return rows;
}

}  // namespace lockstep
