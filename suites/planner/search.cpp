// The search of choose(): the plans in parts, several of them weighed at once. Which plans are weighed that
// are no answers depends on how far the parts are; the answers do not.
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <limits>
#include <mutex>
#include <system_error>
#include <thread>

#include "kernels/cores.hpp"
#include "suites/planner/best.hpp"
#include "suites/planner/pipeline.hpp"

namespace lockstep {

namespace {

const std::string kHangs = "hangs";    // the rule's name
constexpr i64 kPlaces = i64{1} << 40;  // more than a part has plans

// Walks over the plans of a part. Those of a mesh and microbatch share their pieces: before these change,
// what fits is simulated, the most promising first, until the rest cannot be among the answers.
class Chooser {
 public:
  Chooser(Composer& composer, const Cluster& cluster, const Wanted& wanted, Best& best, i64 place)
      : composer_(composer), cluster_(cluster), wanted_(wanted), best_(best), place_(place) {}

  void look_at(const Plan& plan) {
    std::array<std::string, 2> group;
    for (std::size_t i = 0; i < group.size(); ++i) group[i] = plan.text(kGroup[i]);
    if (group != group_) settle(), group_ = group;
    const auto [needs, seconds] =
        composer_.outlook(plan, out_.misfits ? out_.least : std::numeric_limits<double>::infinity());
    Weighed w{"", seconds, needs, place_++};
    if (const double lack = lacks(w.needs, has(cluster_)); lack > 0) {
      if (++out_.misfits == 1 || lack < out_.least)
        w.plan = plan.line(), w.seconds = 0, out_.closest = w, out_.least = lack;
      out_.most = std::max(out_.most, lack);
      return;
    }
    ++out_.fitting;
    if (!best_.may_be(plan, w) || (wanted_.usable && !wanted_.usable(plan))) return;
    w.seconds = std::max(w.seconds, composer_.seconds_at_least(plan));
    if (best_.may_be(plan, w)) waiting_.emplace_back(plan, w);
  }

  // walked: all that was looked at.
  Choices finish(const Enumerated& walked) {
    settle();
    out_.walked.add(walked);
    return std::move(out_);
  }

 private:
  void settle() {
    std::sort(waiting_.begin(), waiting_.end(),
              [](const auto& a, const auto& b) { return before(a.second, b.second); });
    for (auto& [plan, w] : waiting_) {
      if (!best_.may_be(plan, w)) continue;
      try {
        w.seconds = composer_.weigh(plan).seconds;
      } catch (const Hangs& e) {
        refuse_hanging(plan, e.what());
        continue;
      }
      w.plan = plan.line();
      best_.add(plan, w);
      out_.fit.push_back(w);
    }
    waiting_.clear();
  }

  // It is counted as a legal one that fits: what it weighs is known before what it does.
  void refuse_hanging(const Plan& plan, const std::string& why) {
    Enumerated& walked = out_.walked;  // less than nothing, until all that was looked at is added
    --out_.fitting, --walked.legal;
    ++walked.refused[kHangs], walked.why.try_emplace(kHangs, why);
    for (const auto& [word, value] : plan.words()) --walked.axes[word][value];
  }

  Composer& composer_;
  const Cluster& cluster_;
  const Wanted& wanted_;
  Best& best_;
  Choices out_;
  static constexpr const char* kGroup[] = {"dp", "micro"};  // a part has one tp, pp and cp
  std::array<std::string, 2> group_{};                      // what is waiting is of
  i64 place_;
  std::vector<std::pair<Plan, Weighed>> waiting_;  // they fit; seconds at least
};

class Search {
 public:
  Search(const ModelConfig& model, const Settings& settings, const Cluster& cluster, const Values& values,
         const Wanted& wanted)
      : model_(model),
        settings_(settings),
        cluster_(cluster),
        wanted_(wanted),
        best_(values, wanted),
        parts_(parts_of(values, cluster.devices)),
        found_(parts_.size()),
        shares_(parts_.size()) {}

  Choices run() {
    const std::size_t most = static_cast<std::size_t>(wanted_.cores > 0 ? wanted_.cores : cores());
    std::vector<std::thread> others;
    try {
      while (others.size() + 1 < std::min(most, parts_.size())) others.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      // A limit on threads: those that are there will do.
    }
    work();
    for (std::thread& other : others) other.join();
    if (failed_) std::rethrow_exception(failed_);
    return together();
  }

 private:
  void work() {
    try {
      Composer composer(model_, settings_, cluster_);
      for (std::size_t part; (part = begun_++) < parts_.size();) weigh(composer, part);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failed_) failed_ = std::current_exception();
      begun_ = parts_.size();
    }
  }

  void weigh(Composer& composer, std::size_t part) {
    Chooser chooser(composer, cluster_, wanted_, best_, static_cast<i64>(part) * kPlaces);
    found_[part] = chooser.finish(each_legal_plan(
        model_, settings_, cluster_.devices, parts_[part], [&](const Plan& plan) { chooser.look_at(plan); },
        [&](double share) { tell(part, share); }));
    tell(part, 1);
    // Pieces come in many sizes, and what they leave behind in the heap would be a gigabyte in the end.
#ifdef __GLIBC__
    if (found_[part].walked.legal > 0) malloc_trim(0);
#endif
  }

  void tell(std::size_t part, double share) {
    if (!wanted_.share) return;
    const std::lock_guard lock(mutex_);
    told_ += share - shares_[part], shares_[part] = share;
    wanted_.share(told_ / static_cast<double>(parts_.size()));
  }

  Choices together() {
    Choices all;
    for (Choices& c : found_) {
      all.walked.add(c.walked);
      all.fitting += c.fitting;
      all.fit.insert(all.fit.end(), std::move_iterator(c.fit.begin()), std::move_iterator(c.fit.end()));
      if (c.misfits && (!all.misfits || c.least < all.least)) all.closest = c.closest, all.least = c.least;
      all.misfits += c.misfits, all.most = std::max(all.most, c.most);
    }
    std::sort(all.fit.begin(), all.fit.end(), before);
    all.best = best_.by_value();
    return all;
  }

  const ModelConfig& model_;
  const Settings& settings_;
  const Cluster& cluster_;
  const Wanted& wanted_;
  Best best_;
  const std::vector<Values> parts_;
  std::vector<Choices> found_;  // by part
  std::atomic<std::size_t> begun_ = 0;
  std::mutex mutex_;            // of what follows
  std::vector<double> shares_;  // of each part that is weighed
  double told_ = 0;             // all of them
  std::exception_ptr failed_;
};

}  // namespace

Choices choose(const ModelConfig& model, const Settings& settings, const Cluster& cluster,
               const Values& given, const Wanted& wanted) {
  const auto start = std::chrono::steady_clock::now();
  const Values values = plan_values(model, settings, cluster.devices, given, cluster.per_node);
  Choices all = Search(model, settings, cluster, values, wanted).run();
  all.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return all;
}

}  // namespace lockstep
