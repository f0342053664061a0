// A fabric (parallel/comm/fabric.hpp) without a GPU: ranks are threads of this process, a channel is a thread
// that does one thing after another, and what moves data waits for its peers as NCCL's kernels do. The queue
// of a rank's kernels is the rank's thread itself, so whoever waits there waits on the host.
#pragma once
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "parallel/comm/contract.hpp"
#include "parallel/comm/fabric.hpp"
#include "parallel/comm/tree.hpp"

namespace lockstep::test {

// What the ranks of one run share.
class Hub {
 public:
  struct Post {
    const void* from = nullptr;
    void* to = nullptr;
    i64 bytes = 0;
    bool met = false;
  };
  struct Meeting {
    int opened = 0;
    std::map<std::pair<int, int>, std::deque<Post*>> sends, recvs;  // by sender and receiver; not yet met
  };
  using Lock = std::unique_lock<std::mutex>;

  // The job is over, as if every process had been killed: whoever waits is told why.
  void end(const std::string& why) {
    const Lock lock(mutex);
    if (over.empty()) over = why;
    changed.notify_all();
  }
  // Returns when all that can go on has: every channel waits for something, or for work.
  void until_quiet() {
    Lock lock(mutex);
    changed.wait(lock, [&] {
      if (static_cast<int>(waiting.size()) < workers) return false;
      for (const auto* condition : waiting)
        if ((*condition)()) return false;
      return true;
    });
  }
  void set_error(const std::string& text) {
    const Lock lock(mutex);
    if (error.empty()) error = text;
  }
  // With the lock held: NCCL would hang or write beyond the buffer; here it is an error that the watch sees.
  void meet(Post& send, Post& recv) {
    if (send.bytes != recv.bytes) {
      if (error.empty()) error = "a peer sent another size";
      return;
    }
    copy_bytes(recv.to, send.from, send.bytes);
    send.met = recv.met = true;
    changed.notify_all();
  }

  std::mutex mutex;
  std::condition_variable changed;
  std::string over, error;
  std::map<Fabric::Id, Meeting> meetings;
  int ids = 0, workers = 0;
  bool deaf = false;                               // nobody gets a connection
  std::set<const std::function<bool()>*> waiting;  // of channels: what each waits for
};

class StandIn final : public Fabric {
 public:
  // apart: the queue of the rank's kernels is a thread of its own too, and the host waits for nothing.
  explicit StandIn(Hub& hub, bool apart = false) : hub_(hub), apart_(apart) {
    channels_.emplace_back();  // kCompute
  }
  ~StandIn() override {
    {
      const Hub::Lock lock(hub_.mutex);
      end_ = true;
      hub_.changed.notify_all();
    }
    for (Channel& c : channels_)
      if (c.worker.joinable()) c.worker.join();
  }

  Id new_id() override {
    const Hub::Lock lock(hub_.mutex);
    Id id{};
    std::memcpy(id.data(), &++hub_.ids, sizeof hub_.ids);
    return id;
  }
  void channels(int most) override { most_ = most; }
  int open(const Id& id, int size, int me) override {
    if (static_cast<int>(channels_.size()) > most_) throw std::logic_error("more channels than stated");
    Hub::Lock lock(hub_.mutex);
    Hub::Meeting& meeting = hub_.meetings[id];
    ++meeting.opened;
    hub_.changed.notify_all();
    await(lock, [&] { return meeting.opened == size && !hub_.deaf; });
    Channel& c = channels_.emplace_back();
    c.meeting = &meeting, c.size = size, c.me = me;
    return static_cast<int>(channels_.size()) - 1;
  }
  Event new_event() override {
    const Hub::Lock lock(hub_.mutex);
    marks_.push_back({});
    return static_cast<int>(marks_.size()) - 1;
  }
  void* allocate(i64 bytes) override {
    return memory_.emplace_back(static_cast<std::size_t>(bytes / 8 + 1), std::nan("")).data();
  }

  void record(int channel, Event e) override {
    i64 turn = 0;
    {
      const Hub::Lock lock(hub_.mutex);
      turn = ++marks_[e].recorded;
    }
    put(channel, [this, e, turn] {
      const Hub::Lock lock(hub_.mutex);
      marks_[e].passed = turn;
      hub_.changed.notify_all();
    });
  }
  void wait(int channel, Event e) override {
    i64 turn = 0;
    {
      const Hub::Lock lock(hub_.mutex);
      turn = marks_[e].recorded;
    }
    put(channel, [this, e, turn] {
      Hub::Lock lock(hub_.mutex);
      await(lock, [&] { return marks_[e].passed >= turn; });
    });
  }
  // A mark that is passed when the test says so.
  Event hold() {
    const Event e = new_event();
    const Hub::Lock lock(hub_.mutex);
    marks_[e].recorded = 1;
    return e;
  }
  void release(Event e) {
    const Hub::Lock lock(hub_.mutex);
    marks_[e].passed = 1;
    hub_.changed.notify_all();
  }
  void begin() override { gathering_ = true, group_.clear(); }
  void send(int channel, int to, const void* from, i64 bytes) override {
    part(channel, {to, true, {from, nullptr, bytes}});
  }
  void recv(int channel, int from, void* to, i64 bytes) override {
    part(channel, {from, false, {nullptr, to, bytes}});
  }
  void end() override {
    gathering_ = false;
    if (!group_.empty())
      put(group_channel_,
          [this, channel = group_channel_, parts = group_]() mutable { exchange(channel, parts); });
  }
  void all_gather(int channel, const void* in, void* out, i64 bytes) override {
    put(channel, [=, this] { gather(channel, in, static_cast<char*>(out), bytes); });
  }
  void broadcast(int channel, int root, const void* in, void* out, i64 bytes) override {
    put(channel, [=, this] {
      const Channel& c = channels_[channel];
      std::vector<Part> parts;
      if (c.me != root) parts.push_back({root, false, {nullptr, out, bytes}});
      for (int i = 0; c.me == root && i < c.size; ++i)
        if (i != root) parts.push_back({i, true, {in, nullptr, bytes}});
      exchange(channel, parts);
      if (c.me == root) copy_bytes(out, in, bytes);
    });
  }
  // In an order of its own: from the last member to the first.
  void all_reduce(int channel, Type type, Reduce reduce, const void* in, void* out, i64 n) override {
    put(channel, [=, this] { backwards(channel, type, reduce, in, out, n, 0, n); });
  }
  void reduce_scatter(int channel, Type type, Reduce reduce, const void* in, void* out, i64 n) override {
    put(channel, [=, this] {
      backwards(channel, type, reduce, in, out, n * channels_[channel].size, n * channels_[channel].me, n);
    });
  }
  void copy(int channel, void* to, i64 to_stride, const void* from, i64 from_stride, i64 bytes,
            i64 rows) override {
    put(channel, [=] {
      for (i64 r = 0; r < rows; ++r)
        copy_bytes(static_cast<char*>(to) + r * to_stride, static_cast<const char*>(from) + r * from_stride,
                   bytes);
    });
  }
  void combine(int channel, Type type, Reduce reduce, const void* const* parts, int count, i64 n,
               void* out) override {
    put(channel, [=, own = std::vector<const void*>(parts, parts + count)] {
      std::vector<double> sum(static_cast<std::size_t>(n * type_bytes(type) / 8 + 1));
      combine_tree(type, reduce, own.data(), count, n, sum.data());  // whose output may be parts[0] only
      copy_bytes(out, sum.data(), n * type_bytes(type));
    });
  }

  bool passed(Event e) override {
    const Hub::Lock lock(hub_.mutex);
    return marks_[e].passed == marks_[e].recorded;
  }
  std::string error() override {
    const Hub::Lock lock(hub_.mutex);
    return hub_.error;
  }
  void close() override {
    Hub::Lock lock(hub_.mutex);
    await(lock, [&] {
      for (const Channel& c : channels_)
        if (c.done < c.asked) return false;
      return true;
    });
  }

 private:
  struct Part {
    int other;
    bool sends;
    Hub::Post post;
  };
  struct Channel {
    Hub::Meeting* meeting = nullptr;
    int size = 1, me = 0;
    std::deque<std::function<void()>> queue;
    i64 asked = 0, done = 0;
    std::thread worker;
  };
  struct Mark {
    i64 recorded = 0, passed = 0;
  };
  struct Ended {};  // of a worker whose rank is gone

  // Until `condition`, unless the job or this rank is over before.
  template <class F>
  void await(Hub::Lock& lock, const F& condition) {
    const std::function<bool()> met = condition;
    const bool counts = works();
    if (counts) hub_.waiting.insert(&met), hub_.changed.notify_all();
    hub_.changed.wait(lock, [&] { return condition() || !hub_.over.empty() || end_; });
    if (counts) hub_.waiting.erase(&met);
    if (condition()) return;
    if (end_) throw Ended();
    // The rank's thread goes on to end, and with it what its channels are working on: they go first.
    if (!counts) hub_.changed.wait(lock, [&] { return stopped_ == started_; });
    throw CommError(hub_.over);
  }

  void put(int channel, std::function<void()> what) {
    if (channel == kCompute && !apart_) return what();
    Channel& c = channels_[channel];
    const Hub::Lock lock(hub_.mutex);
    c.queue.push_back(std::move(what));
    ++c.asked;
    if (!c.worker.joinable()) ++hub_.workers, ++started_, c.worker = std::thread([this, &c] { work(c); });
    hub_.changed.notify_all();
  }

  // Is this the thread of a channel?
  static bool& works() {
    static thread_local bool it = false;
    return it;
  }
  void work(Channel& c) {
    works() = true;
    try {
      for (;;) {
        Hub::Lock lock(hub_.mutex);
        await(lock, [&] { return !c.queue.empty(); });
        if (!hub_.over.empty()) throw Ended();
        const std::function<void()> what = std::move(c.queue.front());
        c.queue.pop_front();
        lock.unlock();
        what();
        lock.lock();
        ++c.done;
        hub_.changed.notify_all();
      }
    } catch (const Ended&) {
    } catch (const CommError&) {
    }
    const Hub::Lock lock(hub_.mutex);
    ++stopped_;
    hub_.changed.notify_all();
  }

  void part(int channel, const Part& p) {
    if (!gathering_) throw std::logic_error("a send or receive outside of begin() and end()");
    if (!group_.empty() && group_channel_ != channel) throw std::logic_error("a group of two channels");
    group_channel_ = channel;
    group_.push_back(p);
  }

  void exchange(int channel, std::vector<Part>& parts) {
    const Channel& c = channels_[channel];
    Hub::Meeting& meeting = *c.meeting;
    Hub::Lock lock(hub_.mutex);
    if (!hub_.over.empty()) throw Ended();  // the peer's memory may be gone
    const auto ends = [&](const Part& p) {
      return p.sends ? std::pair(c.me, p.other) : std::pair(p.other, c.me);
    };
    for (Part& p : parts) {
      auto& theirs = (p.sends ? meeting.recvs : meeting.sends)[ends(p)];
      if (theirs.empty()) {
        (p.sends ? meeting.sends : meeting.recvs)[ends(p)].push_back(&p.post);
      } else {
        Hub::Post& other = *theirs.front();
        theirs.pop_front();
        p.sends ? hub_.meet(p.post, other) : hub_.meet(other, p.post);
      }
    }
    try {
      await(lock, [&] {
        for (const Part& p : parts)
          if (!p.post.met) return false;
        return true;
      });
    } catch (...) {
      for (Part& p : parts) std::erase((p.sends ? meeting.sends : meeting.recvs)[ends(p)], &p.post);
      throw;
    }
  }

  void gather(int channel, const void* in, char* out, i64 bytes) {
    const Channel& c = channels_[channel];
    std::vector<Part> parts;
    for (int i = 0; i < c.size; ++i) {
      if (i == c.me) continue;
      parts.push_back({i, true, {in, nullptr, bytes}});
      parts.push_back({i, false, {nullptr, out + i * bytes, bytes}});
    }
    exchange(channel, parts);
    copy_bytes(out + c.me * bytes, in, bytes);
  }

  void backwards(int channel, Type type, Reduce reduce, const void* in, void* out, i64 n, i64 first,
                 i64 kept) {
    const i64 bytes = type_bytes(type);
    std::vector<double> all(static_cast<std::size_t>(channels_[channel].size * n * bytes / 8 + 1));
    gather(channel, in, reinterpret_cast<char*>(all.data()), n * bytes);
    const auto part = [&](int i) { return reinterpret_cast<char*>(all.data()) + (i * n + first) * bytes; };
    for (int i = channels_[channel].size - 1; i-- > 0;) {
      const void* two[] = {part(i + 1), part(i)};
      combine_tree(type, reduce, two, 2, kept, part(i + 1));
      copy_bytes(part(i), part(i + 1), kept * bytes);
    }
    copy_bytes(out, part(0), kept * bytes);
  }

  Hub& hub_;
  const bool apart_;
  int most_ = 0, started_ = 0, stopped_ = 0;  // started_, stopped_: threads of channels
  bool end_ = false, gathering_ = false;
  std::deque<Channel> channels_;
  std::deque<Mark> marks_;
  std::deque<std::vector<double>> memory_;
  std::vector<Part> group_;
  int group_channel_ = 0;
};

// The fabrics of ranks that are threads of this process.
class StandIns final : public Fabrics {
 public:
  std::string name() const override { return "stand-in"; }
  std::unique_ptr<Fabric> fabric(Engine*, int) override { return std::make_unique<StandIn>(hub); }
  Hub hub;
};

}  // namespace lockstep::test
