#include "suites/mutants/sites.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

namespace lockstep {
namespace {

using Event = Trace::Event;
using Door = Mutation::Door;
using Change = Mutation::Change;

bool is_call(const Event& e) {
  return e.what == Event::run || e.what == Event::start || e.what == Event::wait || e.what == Event::copy ||
         e.what == Event::copied;
}

// One rank's program, with what its events refer to.
class Program {
 public:
  Program(const Prepared& p, int rank) : mesh_(p.mesh), rank_(rank), events_(p.traces[rank].events) {
    for (int t = 0; t < size(); ++t) {
      const Event& e = events_[t];
      if (e.what == Event::step) step_ = t;
      if (e.what == Event::take) names_[e.block] = e.name, taken_[e.block] = t;
      if (e.what == Event::give) given_[e.block] = t;
      if (e.what == Event::wait || e.what == Event::copied) waited_[{e.what, e.request}] = t;
      for (const int block : touched(e)) last_use_[block] = t;
      if (is_call(e)) calls_.push_back(t);
    }
    // Both ends of a message are in use until its wait.
    for (int t = 0; t < size(); ++t)
      if (events_[t].what == Event::start || events_[t].what == Event::copy)
        for (const int block : touched(events_[t])) last_use_[block] = std::max(last_use_[block], wait_of(t));
  }

  void list(std::vector<Site>& sites) {
    std::map<std::tuple<Door, std::string, std::string, bool>, int> seen;
    for (int t = 0; t < size(); ++t) {
      const Event& e = events_[t];
      Mutation m;
      m.setup = t < step_;
      if (e.what == Event::run)
        m.door = Door::run, m.name = e.name, m.tensor = written(e);
      else if (e.what == Event::start)
        m.door = Door::start, m.name = e.message.what, m.tensor = verb_name(e.message.verb);
      else if (e.what == Event::copy)
        m.door = Door::copy, m.name = e.name;
      else if (e.what == Event::take)
        m.door = Door::take, m.name = e.name;
      else
        continue;
      m.occurrence = seen[{m.door, m.name, m.tensor, m.setup}]++;
      m_ = m, sites_ = &sites;
      axis_ = m.door == Door::start ? axis_name(e.message.axis) : "";
      if (m.door == Door::run) list_run(t);
      if (m.door == Door::start) list_start(t);
      if (m.door == Door::copy) list_copy(t);
      if (m.door == Door::take) list_take(t);
    }
  }

  // Calls between the n-th take of a buffer in the step and its last use; -1: it has none.
  int calls_to_last_use(const std::string& name, int n) const {
    for (int t = step_ + 1; t < size(); ++t)
      if (events_[t].what == Event::take && name == events_[t].name && n-- == 0) {
        const auto last = last_use_.find(events_[t].block);
        if (last == last_use_.end() || !given_.count(events_[t].block)) return -1;
        const auto at = [&](int event) { return std::lower_bound(calls_.begin(), calls_.end(), event); };
        return static_cast<int>(at(last->second) - at(t));
      }
    return -1;
  }

 private:
  int size() const { return static_cast<int>(events_.size()); }
  int wait_of(int t) const {
    const Event& e = events_[t];
    const auto w = waited_.find({e.what == Event::start ? Event::wait : Event::copied, e.request});
    return w == waited_.end() ? size() : w->second;
  }
  std::string written(const Event& e) const {
    return e.views.empty() || e.views[0].block < 0 ? "" : names_.at(e.views[0].block);
  }
  static std::set<int> touched(const Event& e) {
    std::set<int> blocks;
    if (e.what == Event::run || e.what == Event::copy)
      for (const View& v : e.views) blocks.insert(v.block);
    if (e.what == Event::start) blocks.insert(e.ends.begin(), e.ends.end());
    blocks.erase(-1);
    return blocks;
  }
  // The next kernel after t; size(): none.
  int next_run(int t) const {
    for (++t; t < size(); ++t)
      if (events_[t].what == Event::run) return t;
    return size();
  }
  // Does one of the two write where the other begins to read or write?
  bool meet(int t, int u) const {
    const auto writes_into = [&](int a, int b) {
      const std::set<const void*> into = places(events_[a], true), other = places(events_[b], false);
      return std::any_of(into.begin(), into.end(), [&](const void* at) { return other.count(at); });
    };
    return writes_into(t, u) || writes_into(u, t);
  }
  static std::set<const void*> places(const Event& e, bool written) {
    std::set<const void*> at;
    const auto add = [&](const void* place) {
      if (place) at.insert(place);
    };
    if (e.what == Event::start) {
      if (!written) add(e.message.in);
      add(e.message.out);
      return at;
    }
    const std::size_t n = written ? outputs(e.name) : e.views.size();
    for (std::size_t i = 0; i < n; ++i) add(e.views[i].at);
    return at;
  }
  // A kernel's first operands are those it writes.
  static std::size_t outputs(const std::string& kernel) {
    static const std::map<std::string, std::size_t> several = {{"rms_norm", 2}, {"attention", 2},
                                                               {"ce_sum", 2},   {"swiglu_dx", 2},
                                                               {"adamw", 3},    {"attention_dx", 3}};
    const auto it = several.find(kernel);
    return it == several.end() ? 1 : it->second;
  }

  void add(Change change, int index = 0, const char* detail = "") {
    static constexpr const char* doors[] = {"run", "start", "copy", "take", "upload"};
    Mutation m = m_;
    m.change = change, m.index = index;
    std::string kind = doors[static_cast<int>(m.door)];
    for (const std::string& part :
         {without_digits(m.name), without_digits(m.tensor), std::string(m.setup ? "set-up" : ""),
          std::string(change_name(change)), std::string(detail)})
      if (!part.empty()) kind += " " + part;
    sites_->push_back({kind, m, axis_});
  }
  void add_on_one_rank(Change change, int index = 0) {
    add(change, index);
    sites_->back().kind = "one rank: " + sites_->back().kind;
    sites_->back().mutation.rank = rank_;
  }

  void list_run(int t) {
    const Event& e = events_[t];
    add(Change::dropped), add(Change::doubled), add_on_one_rank(Change::dropped);
    for (int i = 0; i < static_cast<int>(e.numbers.size()); ++i)
      if (!of_absent_term(e, i)) add(Change::number, i, std::to_string(i).c_str());
    for (int i = 0; i < static_cast<int>(e.views.size()); ++i)
      if (e.views[i].block >= 0) add(Change::operand, i, std::to_string(i).c_str());
    const std::string name = e.name;
    const bool into = name == "add" && e.views[0].at == e.views[1].at;
    if (into || name == "copy") add(Change::exchanged);
    if (const int next = next_run(t); next < size() && meet(t, next)) add(Change::late);
  }

  // A product of fewer than three terms says nothing of the others.
  static bool of_absent_term(const Event& e, int number) {
    return e.name == std::string("matmul_dx") && number < 6 && e.numbers[number / 2 * 2 + 1] == 0;
  }

  void list_start(int t) {
    const Message& m = events_[t].message;
    const bool transfer = m.verb == Verb::send || m.verb == Verb::recv;
    const bool sum = m.verb == Verb::all_reduce || m.verb == Verb::reduce_scatter;
    const int members = mesh_.group(m.axis, rank_).size();
    if (members == 1) return;  // nobody hears it
    for (const Change change : {Change::dropped, Change::doubled, Change::count, Change::place,
                                Change::number_type, Change::never_waited_for, Change::waited_twice})
      add(change);
    if (m.n > 3) add(Change::half);
    if (sum) add(Change::reduction);
    if (m.verb != Verb::send) add(Change::scaled);
    if (transfer && members > 2) add(Change::peer, members);
    bool alone = false;
    for (int a = 0; a < static_cast<int>(Axis::count); ++a) {
      const Axis axis = static_cast<Axis>(a);
      const int others = mesh_.group(axis, rank_).size();
      const bool of_groups = axis == Axis::shard || axis == Axis::replica;
      if (of_groups && mesh_.replicas == 1) continue;  // dp's own, or a group of one
      if (axis == m.axis || transfer || (others == 1 && alone)) continue;
      alone |= others == 1;
      add(Change::group, a, others == 1 ? "alone" : axis_name(axis));
    }
    const int wait = wait_of(t), next = next_run(t);
    if (next < wait) add(Change::at_once);
    if (next < wait && meet(t, next)) add(Change::late);
    if (const int after = next_run(wait); after < size()) add(Change::waited_late);
    for (const Change change : {Change::dropped, Change::doubled, Change::count, Change::place,
                                Change::number_type, Change::scaled, Change::never_waited_for})
      if (change != Change::scaled || m.verb != Verb::send) add_on_one_rank(change);
    if (sum) add_on_one_rank(Change::reduction);
    if (transfer) add_on_one_rank(Change::tag);
  }

  void list_copy(int t) {
    for (const Change change :
         {Change::dropped, Change::doubled, Change::count, Change::place, Change::never_waited_for})
      add(change);
    const int wait = wait_of(t);
    if (next_run(t) < wait) add(Change::at_once);
    if (next_run(wait) < size()) add(Change::waited_late);
    add_on_one_rank(Change::dropped);
  }

  void list_take(int t) {
    const int block = events_[t].block;
    add(Change::shorter), add(Change::longer);
    if (m_.setup || !given_.count(block)) return;
    add(Change::never);
    if (last_use_.count(block)) add(Change::early);
  }

  const Mesh& mesh_;
  const int rank_;
  const std::vector<Event>& events_;
  int step_ = 0;
  std::map<int, std::string> names_;
  std::map<int, int> taken_, given_, last_use_;  // by block: events
  std::map<std::pair<Event::What, int>, int> waited_;
  std::vector<int> calls_;
  Mutation m_;
  std::string axis_;
  std::vector<Site>* sites_ = nullptr;
};

// When a buffer is given back too early depends on the program.
void complete(Mutation& m, const std::vector<Program>& programs) {
  if (m.change != Change::early) return;
  for (const Program& program : programs) m.after.push_back(program.calls_to_last_use(m.name, m.occurrence));
}

}  // namespace

std::vector<Site> sites_of(const Prepared& p) {
  std::vector<Site> sites;
  std::vector<Program> programs;
  for (int rank = 0; rank < p.mesh.size(); ++rank) programs.emplace_back(p, rank).list(sites);
  // What the executor puts in is no event of a trace.
  for (const char* tensor : {"tokens", "labels", "losses", "squares", "cos", "sin", "weights"})
    for (const Change change : {Change::dropped, Change::count}) {
      Mutation m;
      m.door = Door::upload, m.change = change, m.name = "upload", m.tensor = tensor;
      m.setup = std::string("cos sin weights").find(tensor) != std::string::npos;
      sites.push_back({std::string("upload ") + tensor + " " + change_name(change), m});
    }
  for (Site& s : sites) complete(s.mutation, programs);
  return sites;
}

void complete(Mutation& m, const Prepared& p) {
  std::vector<Program> programs;
  for (int rank = 0; rank < p.mesh.size(); ++rank) programs.emplace_back(p, rank);
  complete(m, programs);
}

}  // namespace lockstep
