// Channels, and why they do not block each other.
//
// By the contract of comm.hpp a start never waits, and a wait waits only until every member has started. NCCL
// does the operations of one of its communicators in the order of their calls, each when all members have
// come to it. So operations may share one only if no rank can need a later one first. Hence
//   - the collectives of an axis share a channel: all members start them in one order, and so they pair;
//   - whoever sends to another has a channel with it, in this direction only. NCCL knows no tags: the k-th
//     send meets the k-th receive, as parallel/trace/pairs.hpp has seen in the traces before the first step.
//
// Then no program hangs here that does not hang by the contract. Suppose some operations are never done. An
// operation runs when the kernels called before its start are done on all of its members, and so are the
// operations before it in its channel, which its members have all started before it. Kernels wait only for
// operations that the program waits for before them. So by the contract, where waiting for an operation is
// waiting for its members' starts and no more, all of these come to pass, the earliest first. The traces say
// that a plan keeps the contract (find_deadlock).
//
// What this takes for granted is room: NCCL's kernels hold their part of a GPU until their peers come, so
// those of all channels must be able to run at once. Fabric::channels() and what lockstep_nccl() sets see
// to that. It is more than NCCL asks for when all ranks call in one order, which pipelines do not.
//
// Source of NCCL's semantics: NCCL User Guide, "Point-to-point communication", "Group Calls", "Creating a
// Communicator" (using several concurrently).
#include "parallel/comm/nccl.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

namespace lockstep {
namespace {

constexpr int kAxes = static_cast<int>(Axis::count);
constexpr i64 kSmall = 1 << 14;  // bytes up to which an all_reduce is one exchange of everything
constexpr i64 kGrain = 32;       // elements that parts of an all_reduce are a multiple of
constexpr int kAfterglow = 256;  // entries beyond those under way: what the watch still knows

i64 round_up(i64 n, i64 to) { return (n + to - 1) / to * to; }

double patience_of(const NcclOptions& options) {
  if (options.patience > 0) return options.patience;
  const char* text = std::getenv("LOCKSTEP_NCCL_PATIENCE");
  const double seconds = text ? std::atof(text) : 0;
  return seconds > 0 ? seconds : 600;
}

i64 bytes_of(const Message& m) { return m.blocks * m.n * type_bytes(m.type); }

// Elements of a member's part of an all_reduce in parts.
i64 part_begin(const Message& m, int size, int i) {
  const i64 all = m.blocks * m.n, each = round_up((all + size - 1) / size, kGrain);
  return std::min(all, i * each);
}

}  // namespace

NcclComm::NcclComm(Comm& introducer, Fabric& fabric, const Mesh& mesh, int rank, const CommNeeds& needs,
                   const NcclOptions& options)
    : fabric_(fabric),
      mesh_(mesh),
      rank_(rank),
      needs_(needs),
      options_(options),
      patience_(patience_of(options)),
      channels_(kAxes, Fabric::kCompute),
      to_(kAxes),
      from_(kAxes),
      stages_(kAxes),
      outstanding_(kAxes),
      entries_(static_cast<std::size_t>(kAxes * needs.outstanding + kAfterglow)) {
  for (int a = 0; a < kAxes; ++a) groups_.push_back(mesh.group(static_cast<Axis>(a), rank));
  watch_ = std::jthread([this](const std::stop_token& stop) { watch(stop); });
  open_groups(introducer);
  open_pairs(introducer);
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    entries_[i].ready = fabric.new_event(), entries_[i].done = fabric.new_event();
    free_.push_back(static_cast<int>(i));
  }
  frees_ = free_.size();
  about_to("");
}

// An axis on which there are collectives has a channel, and memory for what its members send.
void NcclComm::open_groups(Comm& introducer) {
  int most = 0;
  for (const CommNeeds::Pair& p : needs_.pairs) most += p.from == rank_ || p.to == rank_;
  const auto collectives = [&](int a) {
    if (needs_.on_axis.empty()) return CommNeeds::Collectives{needs_.largest_bytes, true};
    return needs_.on_axis[static_cast<std::size_t>(a)];
  };
  const auto used = [&](int a) { return groups_[a].size() > 1 && collectives(a).largest_bytes > 0; };
  for (int a = 0; a < kAxes; ++a) most += used(a);
  fabric_.channels(most);
  for (int a = 0; a < kAxes; ++a) {
    if (!used(a)) continue;
    const Group& group = groups_[a];
    Fabric::Id id{};
    if (group.me == 0) id = fabric_.new_id();
    Message m;
    m.verb = Verb::broadcast, m.axis = group.axis, m.type = Type::i32, m.peer = 0, m.what = "NCCL's id";
    m.in = m.out = id.data(), m.n = static_cast<i64>(id.size()) / 4;
    introducer.wait(introducer.start(m));
    about_to(fmt::format("connecting ranks {} on {}", fmt::join(group.ranks, ", "), axis_name(group.axis)));
    channels_[a] = fabric_.open(id, group.size(), group.me);
    const i64 largest = collectives(a).largest_bytes, members = group.size();
    const i64 gaps = members * (kGrain + 8) * 8;
    stages_[a].parts =
        static_cast<char*>(fabric_.allocate(std::max(largest, std::min(kSmall, largest) * members) + gaps));
    if (collectives(a).in_blocks) stages_[a].packed = static_cast<char*>(fabric_.allocate(largest + gaps));
  }
}

// In the order of the list, which is the same on all ranks: of the pairs not yet open, both members of the
// first have come to it or will.
void NcclComm::open_pairs(Comm& introducer) {
  for (int a = 0; a < kAxes; ++a)
    to_[a].assign(groups_[a].ranks.size(), 0), from_[a].assign(groups_[a].ranks.size(), 0);
  for (const CommNeeds::Pair& p : needs_.pairs) {
    if (p.from != rank_ && p.to != rank_) continue;
    const bool sends = p.from == rank_;
    Fabric::Id id{};
    Message m;
    m.verb = sends ? Verb::send : Verb::recv, m.axis = Axis::world, m.type = Type::i32;
    m.peer = sends ? p.to : p.from, m.what = "NCCL's id", m.n = static_cast<i64>(id.size()) / 4;
    if (sends) id = fabric_.new_id();
    m.in = sends ? id.data() : nullptr, m.out = sends ? nullptr : id.data();
    introducer.wait(introducer.start(m));
    about_to(fmt::format("connecting ranks {}, {} on {}", p.from, p.to, axis_name(p.axis)));
    const auto& ranks = groups_[static_cast<int>(p.axis)].ranks;
    const auto other = std::find(ranks.begin(), ranks.end(), sends ? p.to : p.from) - ranks.begin();
    (sends ? to_ : from_)[static_cast<int>(p.axis)][other] = fabric_.open(id, 2, sends ? 0 : 1);
  }
}

// ---- start and wait

int NcclComm::channel_of(const Message& m) const {
  const int a = static_cast<int>(m.axis);
  if (!is_transfer(m)) return channels_[a];
  const int channel = (m.verb == Verb::send ? to_ : from_)[a][m.peer];
  if (channel == 0)
    throw CommError(
        fmt::format("{}: the trace has no such message between these ranks", describe(m, groups_[a])));
  return channel;
}

int NcclComm::start(const Message& m) {
  go_on_only_if_sound();
  check_start(m, mesh_, rank_, groups_.data(), outstanding_.data(), needs_);
  if (m.type == Type::bf16 && is_reduction(m) && !options_.fast)
    throw std::logic_error("sums of bf16 messages are computed in fast mode only");
  const int channel = channel_of(m);
  const int index = free_[first_free_];
  first_free_ = (first_free_ + 1) % free_.size(), --frees_;
  Entry& e = entries_[index];
  {
    const std::lock_guard lock(mutex_);
    e.flying = false;  // whatever it was: the watch asks for the new one from now on
    moved_ = true;
    e.serial = ++serial_;
    e.channel = channel;
    e.stated.set(m);
  }
  const i64 count = static_cast<i64>(entries_.size());
  e.id = static_cast<int>(index + count * (e.serial % ((1 << 30) / count)));
  ++outstanding_[static_cast<int>(m.axis)];
  if (channel != Fabric::kCompute) {
    fabric_.record(Fabric::kCompute, e.ready);
    fabric_.wait(channel, e.ready);
  }
  put(channel, m);
  fabric_.record(channel, e.done);
  const std::lock_guard lock(mutex_);
  e.flying = channel != Fabric::kCompute;
  return e.id;
}

void NcclComm::wait(int id) {
  go_on_only_if_sound();
  const std::size_t index = static_cast<std::size_t>(std::max(id, 0)) % entries_.size();
  Entry& e = entries_[index];
  if (id < 0 || e.id != id)
    throw CommError(fmt::format("{} waits for a request that it did not start, or for one a second time",
                                place(mesh_, rank_)));
  if (e.channel != Fabric::kCompute) fabric_.wait(Fabric::kCompute, e.done);
  go_on_only_if_sound();
  --outstanding_[static_cast<int>(e.stated.message.axis)];
  e.id = -1;
  free_[(first_free_ + frees_) % free_.size()] = static_cast<int>(index), ++frees_;
}

void NcclComm::finish() {
  std::vector<const Entry*> left;
  for (const Entry& e : entries_)
    if (e.id >= 0) left.push_back(&e);
  std::sort(left.begin(), left.end(), [](const Entry* a, const Entry* b) { return a->serial < b->serial; });
  std::string text;
  for (const Entry* e : left)
    text += (text.empty() ? "" : "; ") + describe(e->stated.message, group_of(e->stated.message));
  if (!left.empty())
    throw CommError(fmt::format("{} ended with {} request{} never waited for: {}", place(mesh_, rank_),
                                left.size(), left.size() == 1 ? "" : "s", text));
  about_to("closing what connects the ranks");
  fabric_.close();
  about_to("");
  go_on_only_if_sound();
}

// ---- what an operation is to its channel

void NcclComm::put(int channel, const Message& m) {
  const i64 all = bytes_of(m);
  if (all == 0) return;               // on all members alike
  if (channel == Fabric::kCompute) {  // in a group of one every collective is a copy
    if (m.out && m.out != m.in) fabric_.copy(channel, m.out, all, m.in, all, all, 1);
    return;
  }
  switch (m.verb) {
    case Verb::send:
      fabric_.begin(), fabric_.send(channel, 1, m.in, all), fabric_.end();
      break;
    case Verb::recv:
      fabric_.begin(), fabric_.recv(channel, 0, m.out, all), fabric_.end();
      break;
    case Verb::broadcast: {
      const bool root = group_of(m).me == m.peer;
      void* out = m.out ? m.out : const_cast<void*>(m.in);  // in place the root's is not written
      fabric_.broadcast(channel, m.peer, root ? m.in : out, out, all);
      break;
    }
    case Verb::all_gather:
      put_all_gather(channel, m);
      break;
    case Verb::all_reduce:
      put_all_reduce(channel, m);
      break;
    case Verb::reduce_scatter:
    case Verb::all_to_all:
      put_scattered(channel, m);
      break;
  }
}

void NcclComm::put_all_gather(int channel, const Message& m) {
  const i64 size = group_of(m).size(), block = m.n * type_bytes(m.type);
  if (m.blocks == 1) return fabric_.all_gather(channel, m.in, m.out, block);
  char *parts = stages_[static_cast<std::size_t>(m.axis)].parts, *out = static_cast<char*>(m.out);
  fabric_.all_gather(channel, m.in, parts, m.blocks * block);
  for (i64 i = 0; i < size; ++i)
    fabric_.copy(channel, out + i * block, size * block, parts + i * m.blocks * block, block, block,
                 m.blocks);
}

void NcclComm::put_all_reduce(int channel, const Message& m) {
  const int size = group_of(m).size();
  const i64 n = m.blocks * m.n, all = bytes_of(m);
  if (options_.fast) return fabric_.all_reduce(channel, m.type, m.reduce, m.in, m.out, n);
  if (all > kSmall) return put_in_parts(channel, m);
  char* stage = stages_[static_cast<std::size_t>(m.axis)].parts;
  fabric_.all_gather(channel, m.in, stage, all);
  const void* parts[kMaxRanks];
  for (int i = 0; i < size; ++i) parts[i] = stage + i * all;
  fabric_.combine(channel, m.type, m.reduce, parts, size, n, m.out);
}

// An all_reduce of much: each member sums one part of it, then sends that to all.
void NcclComm::put_in_parts(int channel, const Message& m) {
  const int size = group_of(m).size(), me = group_of(m).me;
  const i64 type = type_bytes(m.type);
  const auto begin = [&](int i) { return part_begin(m, size, i) * type; };
  const auto bytes = [&](int i) { return begin(i + 1) - begin(i); };
  const char* in = static_cast<const char*>(m.in);
  char *out = static_cast<char*>(m.out), *stage = stages_[static_cast<std::size_t>(m.axis)].parts;
  const void* parts[kMaxRanks];
  fabric_.begin();
  // Everyone begins with its neighbour, or all would send to member 0 at once.
  for (int k = 1; k < size; ++k) {
    const int to = (me + k) % size, from = (me + size - k) % size;
    parts[from] = stage + from * bytes(0);
    if (bytes(to) > 0) fabric_.send(channel, to, in + begin(to), bytes(to));
    if (bytes(me) > 0) fabric_.recv(channel, from, stage + from * bytes(0), bytes(me));
  }
  fabric_.end();
  parts[me] = in + begin(me);
  if (bytes(me) > 0)
    fabric_.combine(channel, m.type, m.reduce, parts, size, bytes(me) / type, out + begin(me));
  fabric_.begin();
  for (int k = 1; k < size; ++k) {
    const int to = (me + k) % size, from = (me + size - k) % size;
    if (bytes(me) > 0) fabric_.send(channel, to, out + begin(me), bytes(me));
    if (bytes(from) > 0) fabric_.recv(channel, from, out + begin(from), bytes(from));
  }
  fabric_.end();
}

// reduce_scatter and all_to_all: row i of every block goes to member i.
void NcclComm::put_scattered(int channel, const Message& m) {
  const int size = group_of(m).size(), me = group_of(m).me;
  const i64 block = m.n * type_bytes(m.type), all = m.blocks * block, stride = round_up(all, 64);
  const char* in = static_cast<const char*>(m.in);
  char* out = static_cast<char*>(m.out);
  const Stage& stage = stages_[static_cast<std::size_t>(m.axis)];
  const bool own_order = options_.fast && m.verb == Verb::reduce_scatter;
  // What member i gets, in one piece.
  const i64 apart = own_order ? all : stride;
  const auto row = [&](int i) { return m.blocks == 1 ? in + i * block : stage.packed + i * apart; };
  for (int i = 0; m.blocks > 1 && i < size; ++i)
    fabric_.copy(channel, stage.packed + i * apart, block, in + i * block, size * block, block, m.blocks);
  if (own_order) {
    // NCCL takes an output within the input at the member's own row only.
    const bool mine = m.blocks == 1 && out == in + me * block;
    const bool clear = out + all <= in || in + size * all <= out || m.blocks > 1;
    void* to = mine || clear ? m.out : stage.parts;
    fabric_.reduce_scatter(channel, m.type, m.reduce, row(0), to, m.blocks * m.n);
    if (to != m.out) fabric_.copy(channel, m.out, all, to, all, all, 1);
    return;
  }

  const void* parts[kMaxRanks];
  for (int i = 0; i < size; ++i) parts[i] = stage.parts + i * stride;
  // The own part too: `out` may lie anywhere within `in`.
  fabric_.copy(channel, stage.parts + me * stride, all, row(me), all, all, 1);
  fabric_.begin();
  for (int k = 1; k < size; ++k) {
    const int to = (me + k) % size, from = (me + size - k) % size;
    fabric_.send(channel, to, row(to), all);
    fabric_.recv(channel, from, stage.parts + from * stride, all);
  }
  fabric_.end();
  if (m.verb == Verb::reduce_scatter)
    return fabric_.combine(channel, m.type, m.reduce, parts, size, m.blocks * m.n, m.out);
  for (int i = 0; i < size; ++i)
    fabric_.copy(channel, out + i * block, size * block, parts[i], block, block, m.blocks);
}

}  // namespace lockstep
