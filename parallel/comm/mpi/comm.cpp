#include "parallel/comm/mpi/comm.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "parallel/comm/tree.hpp"

namespace lockstep {
namespace {

constexpr i64 kSmall =
    1 << 14;  // bytes up to which an all_reduce is one exchange of everything, not two of parts
constexpr int kTags = 1 << 15;  // what MPI promises at least

i64 round_up(i64 bytes) { return (bytes + 63) / 64 * 64; }
// A message is counted in 4 bytes, so that it may have 8 GB. Of an odd number of bf16 the last is half full:
// parts have room for it.
int units(i64 bytes) { return static_cast<int>((bytes + 3) / 4); }

double patience() {
  const char* text = std::getenv("LOCKSTEP_MPI_PATIENCE");
  const double seconds = text ? std::atof(text) : 0;
  return seconds > 0 ? seconds : 600;
}

}  // namespace

void mpi_must(int status, const char* what) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(status, text, &length);
  throw CommError(fmt::format("{}: {}", what, std::string(text, static_cast<std::size_t>(length))));
}

MpiComm::MpiComm(const Mesh& mesh, const CommNeeds& needs, int rank)
    : mesh_(mesh),
      needs_(needs),
      rank_(rank),
      patience_(patience()),
      slots_(static_cast<std::size_t>(kAxes * needs.outstanding)) {
  if (needs.largest_bytes / 4 > INT_MAX)
    throw CommError(fmt::format("a message of {} bytes is more than MPI takes at once", needs.largest_bytes));
  for (int a = 0; a < kAxes; ++a) {
    groups_[a] = mesh.group(static_cast<Axis>(a), rank);
    const Group& group = groups_[a];
    // Members share their first rank, and come in the order of their ranks. An axis that leaves ranks alone
    // gives each a group of one.
    mpi_must(MPI_Comm_split(MPI_COMM_WORLD, group.ranks[0], group.me, &collectives_[a]), "MPI_Comm_split");
    mpi_must(MPI_Comm_dup(collectives_[a], &transfers_[a]), "MPI_Comm_dup");
    MPI_Comm_set_errhandler(collectives_[a], MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(transfers_[a], MPI_ERRORS_RETURN);
    if (group.size() == 1) continue;
    const CommNeeds::OfAxis here = needs.of(static_cast<Axis>(a));
    const i64 room = std::max(here.largest_bytes, kSmall * group.size()) + group.size() * (kHeader + 64);
    for (int i = 0; i < here.outstanding; ++i) {
      Slot& s = slot(a, i);
      s.mine = std::make_unique<Pages>(static_cast<std::size_t>(room));
      s.theirs = std::make_unique<Pages>(static_cast<std::size_t>(room));
      s.requests.resize(static_cast<std::size_t>(2 * group.size()));
      s.statuses.resize(s.requests.size());
      s.from.resize(s.requests.size());
      s.from_bytes.resize(s.requests.size());
    }
  }
}

MpiComm::~MpiComm() {
  for (int a = 0; a < kAxes; ++a) MPI_Comm_free(&transfers_[a]), MPI_Comm_free(&collectives_[a]);
}

std::string MpiComm::left_under_way() const {
  std::string text;
  for (const Slot& s : slots_)
    if (s.id >= 0)
      text += (text.empty() ? "" : "; ") + describe(s.stated.message, group_of(s.stated.message));
  return text;
}

// ---- start

int MpiComm::start(const Message& m) {
  check_start(m, mesh_, rank_, groups_, outstanding_, needs_);
  const int axis = static_cast<int>(m.axis);
  int free = 0;
  while (slot(axis, free).id >= 0) ++free;
  Slot& s = slot(axis, free);
  const int capacity = static_cast<int>(slots_.size());
  s.id = axis * needs_.outstanding + free + capacity * serial_;
  serial_ = (serial_ + 1) % ((1 << 30) / capacity);
  s.stated.set(m);
  ++outstanding_[axis];
  s.second = false;
  s.done = groups_[axis].size() == 1;
  if (s.done) {  // in a group of one every collective is a copy
    copy_bytes(m.out, m.in, in_elements(m, 0, 1) * type_bytes(m.type));
    return s.id;
  }
  if (is_transfer(m)) {
    if (m.tag < 0 || m.tag >= kTags) throw CommError(fmt::format("{}: no tag of MPI's", m.tag));
    s.tag = static_cast<int>(m.tag);
  } else {
    s.tag = static_cast<int>(2 * sequence_[axis]++ % kTags);
  }
  capture(s);
  poison_output(m, groups_[axis]);
  exchange(s);
  return s.id;
}

// An all_reduce of much: each member sums one part of it, then sends that to all.
bool MpiComm::in_parts(const Message& m) const {
  return m.verb == Verb::all_reduce && m.blocks * m.n * type_bytes(m.type) > kSmall;
}

// The input has a part for each member, block by block.
bool MpiComm::scatters(const Message& m) {
  return m.verb == Verb::reduce_scatter || m.verb == Verb::all_to_all;
}

// Copies the input into the parts that others get. One that all of them get is part 0.
void MpiComm::capture(Slot& s) {
  const Message& m = s.stated.message;
  const Group& group = group_of(m);
  const i64 type = type_bytes(m.type), block = m.n * type, all = m.blocks * block;
  const char* in = static_cast<const char*>(m.in);
  s.stride = kHeader + round_up(all);
  if (in_parts(m)) {
    s.stride = kHeader + round_up((m.blocks * m.n / group.size() + 1) * type);
    for (int i = 0; i < group.size(); ++i)
      copy_bytes(s.part(*s.mine, i), in + part_begin(m, i) * type, part_bytes(m, i));
  } else if (scatters(m)) {
    for (int i = 0; i < group.size(); ++i)
      for (i64 b = 0; b < m.blocks; ++b)
        copy_bytes(s.part(*s.mine, i) + b * block, in + (b * group.size() + i) * block, block);
  } else if (in_elements(m, group.me, group.size()) > 0) {
    copy_bytes(s.part(*s.mine, 0), in, all);
  }
}

void MpiComm::exchange(Slot& s) {
  const Message& m = s.stated.message;
  const Group& group = group_of(m);
  const i64 all = m.blocks * m.n * type_bytes(m.type);
  const bool scatter = scatters(m) || (in_parts(m) && !s.second);
  for (int i = 0; i < (scatter ? group.size() : 1); ++i)
    std::memcpy(s.part(*s.mine, i) - kHeader, &s.stated, sizeof s.stated);
  s.posted = 0;
  const auto bytes_from = [&](int i) { return !in_parts(m) ? all : part_bytes(m, s.second ? i : group.me); };
  const auto bytes_to = [&](int i) { return !in_parts(m) ? all : part_bytes(m, s.second ? group.me : i); };
  switch (m.verb) {
    case Verb::send:
      send(s, m.peer, 0, all);
      break;
    case Verb::recv:
      receive(s, m.peer, all);
      break;
    case Verb::broadcast:
      if (group.me != m.peer) receive(s, m.peer, all);
      for (int i = 0; i < group.size(); ++i)
        if (group.me == m.peer && i != group.me) send(s, i, 0, all);
      break;
    default:
      // Everyone begins with its neighbour, or all would send to member 0 at once.
      for (int k = 1; k < group.size(); ++k) {
        const int to = (group.me + k) % group.size(), from = (group.me + group.size() - k) % group.size();
        receive(s, from, bytes_from(from));
        send(s, to, scatter ? to : 0, bytes_to(to));
      }
  }
}

// Receives into the sender's part of `theirs`.
void MpiComm::receive(Slot& s, int from, i64 bytes) {
  const Message& m = s.stated.message;
  const int index = s.posted++;
  s.from[index] = from;
  s.from_bytes[index] = bytes;
  const MPI_Comm comm =
      is_transfer(m) ? transfers_[static_cast<int>(m.axis)] : collectives_[static_cast<int>(m.axis)];
  mpi_must(MPI_Irecv(s.part(*s.theirs, from) - kHeader, units(kHeader + bytes), MPI_INT32_T, from, s.tag,
                     comm, &s.requests[index]),
           "MPI_Irecv");
}

void MpiComm::send(Slot& s, int to, int part, i64 bytes) {
  const Message& m = s.stated.message;
  const int index = s.posted++;
  s.from[index] = -1;
  const char* at = s.part(*s.mine, part) - kHeader;
  const int count = units(kHeader + bytes);
  // A send is a rendezvous: it ends when its recv has started, never because somebody had a buffer to spare.
  if (m.verb == Verb::send)
    mpi_must(MPI_Issend(at, count, MPI_INT32_T, to, s.tag, transfers_[static_cast<int>(m.axis)],
                        &s.requests[index]),
             "MPI_Issend");
  else
    mpi_must(MPI_Isend(at, count, MPI_INT32_T, to, s.tag, collectives_[static_cast<int>(m.axis)],
                       &s.requests[index]),
             "MPI_Isend");
}

// ---- wait

void MpiComm::wait(int id) {
  const int index = id % static_cast<int>(slots_.size());
  if (id < 0 || slots_[static_cast<std::size_t>(index)].id != id)
    throw CommError("waits for a request that it did not start, or for one a second time");
  Slot& s = slots_[static_cast<std::size_t>(index)];
  using Clock = std::chrono::steady_clock;
  Clock::time_point moved = Clock::now();
  for (int in_vain = 0; !s.done;) {
    if (drive(s)) moved = Clock::now(), in_vain = 0;
    // Whom this waits for may need this very core; not every MPI lets go of it by itself.
    if (++in_vain > 100) std::this_thread::yield();
    if (std::chrono::duration<double>(Clock::now() - moved).count() > patience_)
      throw CommError(fmt::format("nothing has moved for {} s while waiting for {}", patience_,
                                  describe(s.stated.message, group_of(s.stated.message))));
  }
  if (group_of(s.stated.message).size() > 1) write_output(s);
  --outstanding_[static_cast<int>(s.stated.message.axis)];
  s.id = -1;
}

// Everything under way goes a step further if it can; true if something did.
bool MpiComm::drive(const Slot& awaited) {
  bool any = false;
  for (Slot& s : slots_) {
    if (s.id < 0 || s.done) continue;
    int complete = 0;
    const int status = MPI_Testall(s.posted, s.requests.data(), &complete, s.statuses.data());
    if (status != MPI_SUCCESS)
      throw CommError(fmt::format("{}: a peer sent a message of another size, or is gone",
                                  describe(s.stated.message, group_of(s.stated.message))));
    if (!complete) continue;
    any = true;
    advance(s);
    if (&s == &awaited && s.done) break;
  }
  return any;
}

void MpiComm::advance(Slot& s) {
  check_received(s);
  if (!in_parts(s.stated.message) || s.second) {
    s.done = true;
    return;
  }
  sum_my_part(s);
  s.second = true;
  ++s.tag;  // of the pair that this collective has
  exchange(s);
}

void MpiComm::check_received(const Slot& s) const {
  const Message& m = s.stated.message;
  const Group& group = group_of(m);
  for (int i = 0; i < s.posted; ++i) {
    if (s.from[i] < 0) continue;
    Stated theirs;
    std::memcpy(static_cast<void*>(&theirs), s.part(*s.theirs, s.from[i]) - kHeader, sizeof theirs);
    theirs.message.what = theirs.what;  // the sender's pointer means nothing here
    check_agreement(theirs.message, s.from[i], m, group.me, group, mesh_);
    int count = 0;
    MPI_Get_count(&s.statuses[i], MPI_INT32_T, &count);
    if (count != units(kHeader + s.from_bytes[i]))
      throw CommError(fmt::format("{}: rank {} sent {} bytes instead of {}", describe(m, group),
                                  group.ranks[s.from[i]], i64{count} * 4 - kHeader, s.from_bytes[i]));
  }
}

// The sends of the first exchange are done, so part 0 of `mine` is free to hold the sum.
void MpiComm::sum_my_part(Slot& s) {
  const Message& m = s.stated.message;
  const Group& group = group_of(m);
  const void* parts[kMaxRanks];
  for (int i = 0; i < group.size(); ++i) parts[i] = s.part(i == group.me ? *s.mine : *s.theirs, i);
  const i64 n = part_begin(m, group.me + 1) - part_begin(m, group.me);
  combine_tree(m.type, m.reduce, parts, group.size(), n, s.part(*s.theirs, group.me));
  copy_bytes(s.part(*s.mine, 0), s.part(*s.theirs, group.me), part_bytes(m, group.me));
}

void MpiComm::write_output(Slot& s) {
  const Message& m = s.stated.message;
  const Group& group = group_of(m);
  const i64 type = type_bytes(m.type), block = m.n * type, all = m.blocks * block;
  char* out = static_cast<char*>(m.out);
  // What member i contributed: my own part was never sent.
  const auto part = [&](int i) {
    const int own = scatters(m) ? group.me : 0;
    return i == group.me ? s.part(*s.mine, own) : s.part(*s.theirs, i);
  };
  const void* parts[kMaxRanks];
  for (int i = 0; i < group.size(); ++i) parts[i] = part(i);
  switch (m.verb) {
    case Verb::send:
      break;
    case Verb::recv:
    case Verb::broadcast:
      copy_bytes(out, part(m.peer), all);
      break;
    case Verb::all_gather:
    case Verb::all_to_all:
      for (i64 b = 0; b < m.blocks; ++b)
        for (int i = 0; i < group.size(); ++i)
          copy_bytes(out + (b * group.size() + i) * block, part(i) + b * block, block);
      break;
    case Verb::reduce_scatter:
      combine_tree(m.type, m.reduce, parts, group.size(), m.blocks * m.n, out);
      break;
    case Verb::all_reduce:
      if (in_parts(m))
        for (int i = 0; i < group.size(); ++i)
          copy_bytes(out + part_begin(m, i) * type, part(i), part_bytes(m, i));
      else
        combine_tree(m.type, m.reduce, parts, group.size(), m.blocks * m.n, out);
      break;
  }
}

}  // namespace lockstep
