#include "suites/planner/chunks/program.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace lockstep {

void Live::add(std::size_t medium, i64 bytes) { most[medium] = std::max(most[medium], now[medium] += bytes); }

void Live::then(const Live& next) {
  for (std::size_t m = 0; m < now.size(); ++m) {
    most[m] = std::max(most[m], now[m] + next.most[m]);
    now[m] += next.now[m];
  }
}

Live repeated(const Live& one, i64 times) {
  Live all;
  for (std::size_t m = 0; m < all.now.size(); ++m) {
    // It grows or shrinks by the same each time, so it is most the first or the last time.
    all.most[m] = std::max(one.most[m], (times - 1) * one.now[m] + one.most[m]);
    all.now[m] = times * one.now[m];
  }
  return all;
}

void Spent::then(const Spent& next) {
  compute += next.compute, update += next.update, copies += next.copies, bubble += next.bubble;
  for (std::size_t a = 0; a < exposed.size(); ++a) exposed[a] += next.exposed[a];
}

void run(const Program& program, Clock& clock, Spent& spent) {
  const std::array<double, streams> before = clock.free;
  thread_local std::vector<double> done;
  done.resize(static_cast<std::size_t>(program.requests));
  double delayed = 0;  // `data`: what has been delayed and has arrived since is no later than the delay's end
  for (const Instruction& o : program.instructions) {
    const double late = o.stream == data ? delayed : 0;
    if (o.what == Instruction::work) {
      clock.now += o.seconds;
      clock.free[data] += o.delay, delayed += o.delay;
      spent.then(o.spent);
    } else if (o.what == Instruction::start) {
      double& free = clock.free[o.stream];
      free = std::max(free, clock.now) + o.seconds;
      done[o.request] = free - late;
    } else if (o.what == Instruction::wait) {
      const double stall = late + (o.request < 0 ? before[o.stream] : done[o.request]) - clock.now;
      if (stall <= 0) continue;
      clock.now += stall;
      (o.stream == data ? spent.exposed[static_cast<int>(Axis::dp)] : spent.copies) += stall;
    }
  }
}

namespace {
constexpr double kNever = -std::numeric_limits<double>::infinity();
}

Transit::Transit() {
  for (int i = 0; i < kNumbers; ++i) {
    rows_[i].fill(kNever);
    rows_[i][i] = 0;
  }
}

Transit::Row Transit::later(const Row& a, const Row& b) {
  Row row;
  for (int i = 0; i < kNumbers; ++i) row[i] = std::max(a[i], b[i]);
  return row;
}

void Transit::work(double seconds, double delay) {
  for (double& x : rows_[0]) x += seconds;
  if (delay == 0) return;
  works_only_ = false, delayed_ += delay;
  for (double& x : rows_[1 + data]) x += delay;
}

void Transit::start(int stream, int request, double seconds) {
  works_only_ = false;
  Row& free = rows_[1 + stream];
  free = later(free, rows_[0]);
  for (double& x : free) x += seconds;
  if (done_.size() <= static_cast<std::size_t>(request)) done_.resize(static_cast<std::size_t>(request) + 1);
  done_[request] = free;
  if (stream != data) return;
  for (double& x : done_[request]) x -= delayed_;
}

void Transit::wait(int stream, int request) {
  works_only_ = false;
  Row before;
  before.fill(kNever);
  before[1 + stream] = 0;
  Row then = request < 0 ? before : done_[request];
  if (stream == data)
    for (double& x : then) x += delayed_;
  rows_[0] = later(rows_[0], then);
}

void Transit::apply(Clock& clock) const {
  if (works_only_) {
    clock.now += rows_[0][0];
    return;
  }
  std::array<double, kNumbers> in{clock.now}, out;
  std::copy(clock.free.begin(), clock.free.end(), in.begin() + 1);
  for (int i = 0; i < kNumbers; ++i) {
    double latest = kNever;
    for (int k = 0; k < kNumbers; ++k) latest = std::max(latest, rows_[i][k] + in[k]);
    out[i] = latest;
  }
  clock.now = out[0];
  std::copy(out.begin() + 1, out.end(), clock.free.begin());
}

Instruction& ProgramWriter::work(double seconds) {
  std::vector<Instruction>& all = program_.instructions;
  if (all.empty() || all.back().what != Instruction::work) all.emplace_back();
  all.back().seconds += seconds, since_ += seconds;
  return all.back();
}

// A rank's own work for a message.
void ProgramWriter::carry(const Message& m, double seconds) {
  work(seconds).spent.exposed[static_cast<int>(in_one_queue(m.axis))] += seconds;
}

void ProgramWriter::wait(int request, std::array<int, 2> known) {
  under_way_.erase(request);
  if (known[0] < 0) return;  // waited for where it started
  if (!exchanges_.empty()) throw std::logic_error("something is waited for beside an exchange of cp's");
  Instruction o;
  o.what = Instruction::wait, o.stream = known[0], o.request = known[1];
  program_.instructions.push_back(o);
}

void ProgramWriter::write(const Trace& trace, std::size_t from, std::size_t to) {
  const auto started = [&](int request, int stream, double seconds) {
    under_way_[request] = {stream, requests_};
    Instruction o;
    o.what = Instruction::start, o.stream = stream, o.request = requests_++, o.seconds = seconds;
    program_.instructions.push_back(o);
  };
  for (std::size_t i = from; i < to; ++i) {
    const Trace::Event& e = trace.events[i];
    switch (e.what) {
      case Trace::Event::take:
        blocks_[e.block] = {static_cast<std::size_t>(medium_of(e.kind)), e.bytes};
        program_.live.add(static_cast<std::size_t>(medium_of(e.kind)), e.bytes);
        break;
      case Trace::Event::give: {
        const auto it = blocks_.find(e.block);
        program_.live.add(it->second.first, -it->second.second);
        blocks_.erase(it);
        break;
      }
      case Trace::Event::run: {
        const double seconds = costs_.kernel(e);
        program_.issue += costs_.issue(e);
        Spent& spent = work(seconds).spent;
        (updating ? spent.update : spent.compute) += seconds;
        break;
      }
      case Trace::Event::start: {
        program_.issue += costs_.issue(e);
        if (costs_.messages_block) {
          carry(e.message, costs_.beginning(e.message));
          carried_[e.request] = e.message;
          break;
        }
        const double seconds = costs_.message(e.message, {});
        const double delay = costs_.delay(e.message);
        if (e.message.axis == Axis::cp) {
          if (exchanges_.empty()) since_ = exchange_free_ = 0;
          exchange_free_ = std::max(exchange_free_, since_) + seconds;
          exchanges_[e.request] = {e.message, exchange_free_, delay};
          break;
        }
        const double blocks = along_dp(e.message.axis) ? costs_.dp_blocks : 1;
        if (blocks > 0) carry(e.message, blocks * seconds);
        if (delay > 0) work(0).delay += delay;
        if (along_dp(e.message.axis))
          started(e.request, data, (1 - blocks) * seconds);
        else
          under_way_[e.request] = {-1, -1};
        break;
      }
      case Trace::Event::copy: {
        const double seconds = costs_.copy(e);
        if (costs_.copies_block) {
          work(seconds).spent.copies += seconds;
          under_way_[e.request] = {-1, -1};
        } else {
          started(e.request, down + costs_.copy_stream(e), seconds);
        }
        break;
      }
      case Trace::Event::wait:
        if (const auto it = carried_.find(e.request); it != carried_.end()) {
          carry(it->second, costs_.message(it->second, {}));
          carried_.erase(it);
          break;
        }
        if (const auto it = exchanges_.find(e.request); it != exchanges_.end()) {
          const auto [message, done, delay] = it->second;
          if (done > since_) carry(message, done - since_);
          if (delay > 0) work(0).delay += delay;
          exchanges_.erase(it);
          break;
        }
        [[fallthrough]];
      case Trace::Event::copied:
        wait(e.request, under_way_.at(e.request));
        break;
      default:
        break;
    }
  }
}

void ProgramWriter::skip(const Trace& trace, std::size_t from, std::size_t to) {
  for (std::size_t i = from; i < to; ++i) {
    const Trace::Event& e = trace.events[i];
    if (e.what == Trace::Event::take)
      blocks_[e.block] = {static_cast<std::size_t>(medium_of(e.kind)), e.bytes};
    else if (e.what == Trace::Event::give)
      blocks_.erase(e.block);
    else if (e.what == Trace::Event::start && costs_.messages_block)
      carried_[e.request] = e.message;
    else if (e.what == Trace::Event::start)
      under_way_[e.request] = {along_dp(e.message.axis) ? int{data} : -1, -1};
    else if (e.what == Trace::Event::copy)
      under_way_[e.request] = {costs_.copies_block ? -1 : down + costs_.copy_stream(e), -1};
    else if (e.what == Trace::Event::wait || e.what == Trace::Event::copied)
      under_way_.erase(e.request), carried_.erase(e.request);
  }
}

Program ProgramWriter::take() {
  Program done = std::move(program_);
  done.requests = requests_;
  for (const Instruction& o : done.instructions)
    if (o.what == Instruction::work) done.work += o.seconds;
  program_ = {};
  return done;
}

}  // namespace lockstep
