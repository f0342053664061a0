#include "parallel/comm/contract.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <functional>

namespace lockstep {
namespace {

// The same operation, as two members of it state it.
bool agree(const Message& a, const Message& b) {
  const bool same_kind = is_transfer(a) ? is_transfer(b) : a.verb == b.verb;
  return same_kind && a.type == b.type && a.blocks == b.blocks && a.n == b.n &&
         a.microbatch == b.microbatch && (!is_reduction(a) || a.reduce == b.reduce) &&
         (a.verb != Verb::broadcast || a.peer == b.peer) &&
         std::strncmp(a.what, b.what, sizeof Stated::what - 1) == 0;
}

std::string spell(const Message& m, const Group& group) {
  std::string text = describe(m, group);
  if (is_reduction(m))
    text += m.reduce == Reduce::sum ? ", sum" : m.reduce == Reduce::max ? ", max" : ", none";
  if (m.verb == Verb::broadcast) text += fmt::format(", root {}", m.peer);
  if (is_transfer(m)) text += fmt::format(", tag {}", m.tag);
  return text + fmt::format(", {} blocks of {} {}", m.blocks, m.n, type_name(m.type));
}

bool overlap(const char* a, i64 a_bytes, const char* b, i64 b_bytes) {
  const std::less<const char*> before;
  return a && b && before(a, b + b_bytes) && before(b, a + a_bytes);
}

// A quiet NaN in floats, a large number in integers.
void poison(Type type, char* begin, char* end) {
  const bool real = type == Type::f32 || type == Type::f64;
  if (begin < end) std::memset(begin, real ? 0xFF : 0x7F, static_cast<std::size_t>(end - begin));
}

}  // namespace

bool is_transfer(const Message& m) { return m.verb == Verb::send || m.verb == Verb::recv; }
bool is_reduction(const Message& m) { return m.verb == Verb::all_reduce || m.verb == Verb::reduce_scatter; }

void Stated::set(const Message& m) {
  message = m;
  std::strncpy(what, m.what ? m.what : "", sizeof what - 1);
  what[sizeof what - 1] = 0;
  message.what = what;
}

void check_start(const Message& m, const Mesh& mesh, int rank, const Group* groups, const int* outstanding,
                 const CommNeeds& needs) {
  const auto refuse = [&](const std::string& why) {
    throw CommError(fmt::format("{}: {} of `{}` on {}: {}", place(mesh, rank), verb_name(m.verb),
                                m.what ? m.what : "", axis_name(m.axis), why));
  };
  const int axis = static_cast<int>(m.axis);
  if (axis < 0 || axis >= static_cast<int>(Axis::count)) refuse("not an axis");
  const Group& group = groups[axis];
  if (m.blocks < 0 || m.n < 0) refuse(fmt::format("negative size, blocks {} n {}", m.blocks, m.n));
  if (is_reduction(m) && m.reduce == Reduce::none) refuse("must state sum or max");
  if ((is_transfer(m) || m.verb == Verb::broadcast) && (m.peer < 0 || m.peer >= group.size()))
    refuse(fmt::format("peer {} is not in the group of {}", m.peer, group.size()));
  if (is_transfer(m) && m.peer == group.me) refuse("a rank cannot send to itself");
  const i64 in = in_elements(m, group.me, group.size()), out = out_elements(m, group.me, group.size());
  if (in > 0 && !m.in) refuse("no input");
  const bool may_drop = m.verb == Verb::broadcast && m.peer == group.me;  // the root has it already
  if (out > 0 && !m.out && !may_drop) refuse("no output");
  const i64 bytes = std::max(in, out) * type_bytes(m.type);
  const CommNeeds::OfAxis stated = needs.of(m.axis);
  if (bytes > stated.largest_bytes)
    refuse(fmt::format("{} bytes, but the largest message was stated as {}", bytes, stated.largest_bytes));
  if (outstanding[axis] >= stated.outstanding)
    refuse(fmt::format("more than the stated {} under way at once", stated.outstanding));
}

void check_agreement(const Message& of_a, int a, const Message& of_b, int b, const Group& group,
                     const Mesh& mesh) {
  if (!agree(of_a, of_b))
    throw CommError(fmt::format("mismatch on {}: {} started {}, but {} started {}", axis_name(group.axis),
                                place(mesh, group.ranks[a]), spell(of_a, group), place(mesh, group.ranks[b]),
                                spell(of_b, group)));
}

void poison_output(const Message& m, const Group& group) {
  if (!m.out) return;
  const i64 in_bytes = in_elements(m, group.me, group.size()) * type_bytes(m.type);
  const i64 out_bytes = out_elements(m, group.me, group.size()) * type_bytes(m.type);
  char* out = static_cast<char*>(m.out);
  char* in = static_cast<char*>(const_cast<void*>(m.in));
  if (!overlap(in, in_bytes, out, out_bytes)) return poison(m.type, out, out + out_bytes);
  const std::less<char*> before;  // all of the output but the input within it
  if (before(out, in)) poison(m.type, out, in);
  if (before(in + in_bytes, out + out_bytes)) poison(m.type, in + in_bytes, out + out_bytes);
}

void copy_bytes(void* to, const void* from, i64 bytes) {
  if (to && bytes > 0 && to != from) std::memmove(to, from, static_cast<std::size_t>(bytes));
}

}  // namespace lockstep
