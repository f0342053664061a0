#include "suites/text_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace lockstep {

std::string TextTable::text(bool markdown) const {
  std::vector<std::size_t> width;
  std::vector<bool> right;
  for (std::size_t c = 0; c < head_.size(); ++c) {
    width.push_back(head_[c].size());
    right.push_back(c >= texts_ && !rows_.empty());
    for (const auto& row : rows_) {
      width[c] = std::max(width[c], row[c].size());
      right[c] = right[c] && std::all_of(row[c].begin(), row[c].end(),
                                         [](unsigned char ch) { return std::isdigit(ch) || ch == '.'; });
    }
  }
  std::string out;
  const auto line = [&](const std::vector<std::string>& row) {
    std::string text;
    for (std::size_t c = 0; c < row.size(); ++c)
      text += markdown   ? "| " + row[c] + " "
              : right[c] ? fmt::format("{:>{}}  ", row[c], width[c])
                         : fmt::format("{:<{}}  ", row[c], width[c]);
    if (markdown) text += "|";
    out += text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
  };
  line(head_);
  if (markdown) {
    for (std::size_t c = 0; c < head_.size(); ++c) out += right[c] ? "| ---: " : "| --- ";
    out += "|\n";
  }
  for (const auto& row : rows_) line(row);
  return out;
}

}  // namespace lockstep
