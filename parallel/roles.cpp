#include "parallel/roles.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "parallel/strategy_error.hpp"

namespace lockstep {
namespace {

template <class Role>
std::vector<const Strategy<Role>*>& registered() {
  static std::vector<const Strategy<Role>*> list;
  return list;
}

template <class Role>
constexpr const char* kRole = nullptr;
template <>
constexpr const char* kRole<Seam> = "seam";
template <>
constexpr const char* kRole<Spread> = "spread";
template <>
constexpr const char* kRole<Schedule> = "schedule";
template <>
constexpr const char* kRole<Store> = "store";
template <>
constexpr const char* kRole<Home> = "home";
template <>
constexpr const char* kRole<Stash> = "stash";
template <>
constexpr const char* kRole<Shelf> = "shelf";

template <class Role>
[[noreturn]] void clash(const Strategy<Role>& a, const Strategy<Role>& b, const std::string& why) {
  throw StrategyError(
      fmt::format("strategies: {0} `{1}` and {0} `{2}` both {3}", kRole<Role>, a.name, b.name, why));
}

template <class Role>
void check_names() {
  const auto& all = registered<Role>();
  for (auto a = all.begin(); a != all.end(); ++a)
    for (auto b = all.begin(); b != a; ++b)
      if (std::string((*a)->name) == (*b)->name)
        clash(**b, **a, "have this name; a role's strategies have a name each");
}

}  // namespace

template <class Role>
Strategy<Role>::Strategy(const char* n, std::vector<Word> w, bool (*wanted)(const Plan&), std::vector<Rule> r,
                         std::unique_ptr<Role> (*m)(const Context&), PriceOf<Role> p)
    : name(n), words(std::move(w)), wants(wanted), rules(std::move(r)), make(m), price(p) {
  registered<Role>().push_back(this);
  for (const Word& word : words) declare_word(word);
}

template <class Role>
Strategy<Role>::~Strategy() {
  std::erase(registered<Role>(), this);
}

bool asks_for(const Plan& plan, const Word& word) {
  const std::string& value = plan.text(word.name);
  return value != word.fallback &&
         std::find(word.values.begin(), word.values.end(), value) != word.values.end();
}

template <class Role>
const std::vector<const Strategy<Role>*>& strategies() {
  return registered<Role>();
}

template <class Role>
const Strategy<Role>& chosen(const Plan& plan) {
  const Strategy<Role>*fallback = nullptr, *wanted = nullptr;
  for (const Strategy<Role>* s : registered<Role>()) {
    if (s->wants && !s->wants(plan)) continue;
    const Strategy<Role>*& one = s->wants ? wanted : fallback;
    if (one && s->wants)
      clash(*one, *s,
            fmt::format("want the plan `{}`; each may want only values that it lists", plan.line()));
    if (one) clash(*one, *s, "have no `wants`, so both are the default; give the new one a `wants`");
    one = s;
  }
  if (!fallback) throw StrategyError(fmt::format("strategies: no {} is the default", kRole<Role>));
  return wanted ? *wanted : *fallback;
}

template <class Role>
std::unique_ptr<Role> made(const Context& context) {
  const Strategy<Role>& strategy = chosen<Role>(context.plan);
  std::unique_ptr<Role> one = strategy.make(context);
  if (!one)
    throw StrategyError(
        fmt::format("strategies: `make` of {} `{}` returns nothing", kRole<Role>, strategy.name));
  return one;
}

void check_strategies() {
  check_names<Seam>(), check_names<Spread>(), check_names<Schedule>(), check_names<Store>();
  check_names<Home>(), check_names<Stash>(), check_names<Shelf>();
  chosen_names(Plan::parse(""));
}

std::string chosen_names(const Plan& plan) {
  return fmt::format("seam {}, spread {}, schedule {}, store {}, home {}, stash {}, shelf {}",
                     chosen<Seam>(plan).name, chosen<Spread>(plan).name, chosen<Schedule>(plan).name,
                     chosen<Store>(plan).name, chosen<Home>(plan).name, chosen<Stash>(plan).name,
                     chosen<Shelf>(plan).name);
}

template struct Strategy<Seam>;
template struct Strategy<Spread>;
template struct Strategy<Schedule>;
template struct Strategy<Store>;
template struct Strategy<Home>;
template struct Strategy<Stash>;
template struct Strategy<Shelf>;
template const std::vector<const Strategy<Seam>*>& strategies();
template const std::vector<const Strategy<Spread>*>& strategies();
template const std::vector<const Strategy<Schedule>*>& strategies();
template const std::vector<const Strategy<Store>*>& strategies();
template const std::vector<const Strategy<Home>*>& strategies();
template const std::vector<const Strategy<Stash>*>& strategies();
template const std::vector<const Strategy<Shelf>*>& strategies();
template const Strategy<Seam>& chosen(const Plan&);
template const Strategy<Spread>& chosen(const Plan&);
template const Strategy<Schedule>& chosen(const Plan&);
template const Strategy<Store>& chosen(const Plan&);
template const Strategy<Home>& chosen(const Plan&);
template const Strategy<Stash>& chosen(const Plan&);
template const Strategy<Shelf>& chosen(const Plan&);
template std::unique_ptr<Seam> made(const Context&);
template std::unique_ptr<Spread> made(const Context&);
template std::unique_ptr<Schedule> made(const Context&);
template std::unique_ptr<Store> made(const Context&);
template std::unique_ptr<Home> made(const Context&);
template std::unique_ptr<Stash> made(const Context&);
template std::unique_ptr<Shelf> made(const Context&);

}  // namespace lockstep
