#include "suites/planner/legality.hpp"

#include <algorithm>

namespace lockstep {

Legality::Legality(const ModelConfig& model, const Settings& settings, const std::vector<std::string>& words,
                   const std::vector<std::vector<std::string>>& values)
    : model_(model),
      settings_(settings),
      words_(words),
      values_(values),
      choice_(words.size(), -1),
      in_plan_(words.size(), -1),
      answers_(words.size() + 1, std::vector<Answer>(checks_anywhere().size())),
      tables_(checks_anywhere().size()),
      plan_(Plan::parse("")) {
  for (const std::string& word : words)
    bits_.push_back(word_bit(word)), fallbacks_.push_back(plan_.text(word));
}

void Legality::set(std::size_t depth, int value) {
  choice_[depth] = value;
  std::fill(choice_.begin() + static_cast<std::ptrdiff_t>(depth) + 1, choice_.end(), -1);
  answers_[depth + 1] = answers_[depth];
  if (values_[depth][static_cast<std::size_t>(value)] == fallbacks_[depth]) return;
  for (Answer& a : answers_[depth + 1])
    if (a.read & bits_[depth]) a.asked = false;
}

Legality::Verdict Legality::verdict(std::size_t depth) {
  std::vector<Answer>& answers = answers_[depth + 1];
  for (std::size_t check = 0; check < answers.size(); ++check) {
    Answer& a = answers[check];
    if (!a.asked) a = ask(check);
    if (a.verdict.rule >= 0) return a.verdict;
  }
  return {};
}

std::u16string Legality::values_at(const std::vector<std::size_t>& depths) const {
  std::u16string key;
  for (const std::size_t depth : depths) key.push_back(static_cast<char16_t>(choice_[depth] + 1));
  return key;
}

const Legality::Answer& Legality::ask(std::size_t check) {
  for (Table& t : tables_[check])
    if (const auto known = t.answers.find(values_at(t.depths)); known != t.answers.end())
      return known->second;

  Answer answer;
  answer.asked = true;
  plan();
  plan_.note_reads(&answer.read);
  const auto refusal = checks_anywhere()[check](plan_, model_, settings_);
  plan_.note_reads(nullptr);
  if (refusal) {
    for (const std::string& word : refusal->words) answer.verdict.blamed |= word_bit(word);
    const auto rule = std::find(rules_.begin(), rules_.end(), refusal->rule);
    answer.verdict.rule = static_cast<int>(rule - rules_.begin());
    if (rule == rules_.end()) rules_.push_back(refusal->rule);
  }
  auto table = std::find_if(tables_[check].begin(), tables_[check].end(),
                            [&](const Table& t) { return t.read == answer.read; });
  if (table == tables_[check].end()) {
    table = tables_[check].insert(table, Table{answer.read, {}, {}});
    for (std::size_t depth = 0; depth < words_.size(); ++depth)
      if (answer.read & bits_[depth]) table->depths.push_back(depth);
  }
  return table->answers[values_at(table->depths)] = answer;
}

const Plan& Legality::plan() {
  for (std::size_t depth = 0; depth < words_.size(); ++depth) {
    const int value = choice_[depth];
    if (in_plan_[depth] == value) continue;
    plan_.set(words_[depth], value < 0 ? fallbacks_[depth] : values_[depth][static_cast<std::size_t>(value)]);
    in_plan_[depth] = value;
  }
  return plan_;
}

}  // namespace lockstep
