// Rows of published measurements: suites/published/*.csv.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "kernels/lanes.hpp"

namespace lockstep {

// One measurement: the words of its columns (suites/published/README.md names them); an empty one is left
// out.
struct PublishedRow {
  std::string file;
  int line = 0;    // of the file
  i64 number = 0;  // among the file's rows, from 1
  std::map<std::string, std::string> words;

  const std::string& text(const std::string& column) const;  // "" where empty
  // Of a column that says a whole number, or any number greater than 0. UserError: it says something else.
  i64 whole(const std::string& column, i64 fallback) const;
  double positive(const std::string& column) const;
  std::string place() const;  // "file:line"
};

// Comma-separated, texts in double quotes where needed; the first line that is no comment (#) names the
// columns. UserError: no such file, an unknown or missing column, a row of another length.
std::vector<PublishedRow> read_published_rows(const std::string& path);

const std::vector<std::string>& published_columns();

}  // namespace lockstep
