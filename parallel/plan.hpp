// A plan in words: "dp=2 tp=2 pp=2 schedule=1f1b ckpt=full micro=1". The same words in the command line,
// suites, records and plots. Each word is declared by the file that answers to it.
#pragma once
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ref/config.hpp"
#include "ref/settings.hpp"

namespace lockstep {

struct Word {
  std::string name;
  std::string fallback;             // value when the plan does not say
  std::vector<std::string> values;  // allowed ones; empty: a positive number
  std::string help;
};

// Words by their place in plan_words(), a bit each.
using WordSet = std::uint64_t;
WordSet word_bit(const std::string& word);  // StrategyError: no strategy lists it

class Plan {
 public:
  // UserError: a word or value nobody knows, with the nearest that somebody does.
  static Plan parse(const std::string& line);
  int number(const std::string& word) const;
  const std::string& text(const std::string& word) const;
  int ranks() const { return product({"dp", "cp", "tp", "pp"}); }
  int sharers() const { return product({"dp", "cp"}); }  // ranks with the same weights and other tokens
  std::string line() const;  // every word that differs from its fallback, and dp tp pp always
  const std::map<std::string, std::string>& words() const;
  void set(const std::string& word, const std::string& value);
  // From now on every word that this plan is asked for enters `read`; null: no longer.
  void note_reads(WordSet* read) { read_ = read; }

 private:
  int product(std::initializer_list<const char*> words) const;  // INT_MAX where it is more

  std::map<std::string, std::string> words_;
  WordSet* read_ = nullptr;
};

// The settings as a rank's part of a step sees them: where a sequence is cut over cp ranks, a sample is a
// segment of it, and there are more and shorter ones.
Settings in_segments(Settings, const Plan&);

// All words, mesh first, then by name.
const std::vector<Word>& plan_words();
void declare_word(const Word&);  // the same word from several files: their values are joined

// "; did you mean `x`?" of the known name that begins so, or else has the fewest letters to change, insert or
// leave out (Levenshtein 1966); empty where none is near.
std::string did_you_mean(const std::string& wrong, const std::vector<std::string>& known);

// What --only asks. Of each part between blanks: word=value that the plan has, said or not, else anything in
// its line.
bool matches(const Plan&, const std::string& parts);

// Why a plan cannot be run. `broken` returns the sentence, or nothing if the plan keeps the rule.
struct Rule {
  std::string name;  // "tp-divides-heads"
  std::function<std::optional<std::string>(const Plan&, const ModelConfig&, const Settings&)> broken;
};
struct Refusal {
  std::string rule, why;
  std::vector<std::string> words = {};  // that the rule looked at: all plans with their values are refused
};
// What is asked of a plan on any cluster, in this order: a refusal, or nothing.
using Check = std::function<std::optional<Refusal>(const Plan&, const ModelConfig&, const Settings&)>;
const std::vector<Check>& checks_anywhere();
// The first rule the plan breaks: the mesh's own, then those of the strategies it chooses.
std::optional<Refusal> refuse(const Plan&, const ModelConfig&, const Settings&);
// The same on any cluster: without what the processes of this program can take.
std::optional<Refusal> refuse_anywhere(const Plan&, const ModelConfig&, const Settings&);

}  // namespace lockstep
