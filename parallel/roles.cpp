#include "parallel/roles.hpp"

#include <stdexcept>

namespace lockstep {
namespace {

template <class Role>
std::vector<const Strategy<Role>*>& registered() {
  static std::vector<const Strategy<Role>*> list;
  return list;
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
const std::vector<const Strategy<Role>*>& strategies() {
  return registered<Role>();
}

template <class Role>
const Strategy<Role>& chosen(const Plan& plan) {
  const Strategy<Role>* fallback = nullptr;
  for (const Strategy<Role>* s : registered<Role>()) {
    if (!s->wants)
      fallback = s;
    else if (s->wants(plan))
      return *s;
  }
  if (!fallback) throw std::logic_error("a role has no default strategy");
  return *fallback;
}

template struct Strategy<Seam>;
template struct Strategy<Schedule>;
template struct Strategy<Store>;
template struct Strategy<Home>;
template struct Strategy<Stash>;
template struct Strategy<Shelf>;
template const std::vector<const Strategy<Seam>*>& strategies();
template const std::vector<const Strategy<Schedule>*>& strategies();
template const std::vector<const Strategy<Store>*>& strategies();
template const std::vector<const Strategy<Home>*>& strategies();
template const std::vector<const Strategy<Stash>*>& strategies();
template const std::vector<const Strategy<Shelf>*>& strategies();
template const Strategy<Seam>& chosen(const Plan&);
template const Strategy<Schedule>& chosen(const Plan&);
template const Strategy<Store>& chosen(const Plan&);
template const Strategy<Home>& chosen(const Plan&);
template const Strategy<Stash>& chosen(const Plan&);
template const Strategy<Shelf>& chosen(const Plan&);

}  // namespace lockstep
