// A table as text with aligned columns, or as Markdown.
#pragma once
#include <string>
#include <vector>

namespace lockstep {

class TextTable {
 public:
  // The first `texts` columns are aligned left; of the others those whose entries are numbers right.
  TextTable(std::vector<std::string> head, std::size_t texts) : head_(std::move(head)), texts_(texts) {}
  void add(const std::vector<std::string>& row) { rows_.push_back(row); }
  std::size_t rows() const { return rows_.size(); }
  std::string text(bool markdown) const;

 private:
  std::vector<std::string> head_;
  std::size_t texts_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace lockstep
