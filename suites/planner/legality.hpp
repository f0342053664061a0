// Which plans are legal, asked along a walk that sets one word after another. Most rules look at few words: a
// rule is asked again only when a word that it looked at has changed, and never twice about the same values.
#pragma once
#include <string>
#include <unordered_map>
#include <vector>

#include "parallel/plan.hpp"

namespace lockstep {

class Legality {
 public:
  // Keeps references. The words in the order in which the walk sets them, and their values.
  Legality(const ModelConfig&, const Settings&, const std::vector<std::string>& words,
           const std::vector<std::vector<std::string>>& values);
  // Sets the word at this depth to one of its values, those behind it to their fallbacks.
  void set(std::size_t depth, int value);
  struct Verdict {
    int rule = -1;       // refused by rules()[rule]; -1: the plan is legal
    WordSet blamed = 0;  // that the rule looked at
  };
  // Of the words up to this depth, with the others at their fallbacks.
  Verdict verdict(std::size_t depth);
  const std::vector<std::string>& rules() const { return rules_; }
  const Plan& plan();  // the words as they are set

 private:
  struct Answer {
    bool asked = false;
    WordSet read = 0;  // by the whole check, whether it passed or not
    Verdict verdict;
  };
  // A check's answers, by the values of the words that it read.
  struct Table {
    WordSet read = 0;
    std::vector<std::size_t> depths;
    std::unordered_map<std::u16string, Answer> answers;
  };
  const Answer& ask(std::size_t check);
  std::u16string values_at(const std::vector<std::size_t>& depths) const;

  const ModelConfig& model_;
  const Settings& settings_;
  const std::vector<std::string>& words_;
  const std::vector<std::vector<std::string>>& values_;
  std::vector<WordSet> bits_;                 // of the words
  std::vector<std::string> fallbacks_;        // of the words
  std::vector<int> choice_, in_plan_;         // which values are set, and which plan_ has; -1: the fallback
  std::vector<std::vector<Answer>> answers_;  // by depth and check
  std::vector<std::vector<Table>> tables_;    // by check
  std::vector<std::string> rules_;
  Plan plan_;
};

}  // namespace lockstep
