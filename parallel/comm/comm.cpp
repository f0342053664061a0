#include "parallel/comm/comm.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace lockstep {

const char* verb_name(Verb verb) {
  switch (verb) {
    case Verb::all_reduce:
      return "all_reduce";
    case Verb::reduce_scatter:
      return "reduce_scatter";
    case Verb::all_gather:
      return "all_gather";
    case Verb::all_to_all:
      return "all_to_all";
    case Verb::broadcast:
      return "broadcast";
    case Verb::send:
      return "send";
    case Verb::recv:
      return "recv";
  }
  return "?";
}

const char* type_name(Type type) {
  switch (type) {
    case Type::f32:
      return "f32";
    case Type::f64:
      return "f64";
    case Type::i64:
      return "i64";
    case Type::i32:
      return "i32";
    case Type::bf16:
      return "bf16";
  }
  return "?";
}

i64 type_bytes(Type type) { return type == Type::bf16 ? 2 : type == Type::f32 || type == Type::i32 ? 4 : 8; }

i64 in_elements(const Message& m, int me, int size) {
  switch (m.verb) {
    case Verb::reduce_scatter:
    case Verb::all_to_all:
      return m.blocks * m.n * size;
    case Verb::broadcast:
      return me == m.peer ? m.blocks * m.n : 0;
    case Verb::recv:
      return 0;
    default:
      return m.blocks * m.n;
  }
}

i64 out_elements(const Message& m, int, int size) {
  switch (m.verb) {
    case Verb::all_gather:
    case Verb::all_to_all:
      return m.blocks * m.n * size;
    case Verb::send:
      return 0;
    default:
      return m.blocks * m.n;
  }
}

std::string describe(const Message& m, const Group& group) {
  std::string text = fmt::format("{} of `{}`", verb_name(m.verb), m.what);
  if (m.microbatch >= 0) text += fmt::format(" microbatch {}", m.microbatch);
  const std::string on = fmt::format(" on {}", axis_name(m.axis));
  if (m.verb == Verb::send || m.verb == Verb::recv) {
    const char* way = m.verb == Verb::send ? "to" : "from";
    const bool known = m.peer >= 0 && m.peer < group.size();
    return text + (known ? fmt::format(" {} rank {}", way, group.ranks[m.peer]) : "") + on;
  }
  return text + on + fmt::format(" among ranks {}", fmt::join(group.ranks, ", "));
}

std::string place(const Mesh& mesh, int rank) {
  const std::string cp = mesh.cp > 1 ? fmt::format(", cp {}", mesh.cp_of(rank)) : "";
  return fmt::format("rank {} (dp {}, tp {}, pp {}{})", rank, mesh.dp_of(rank) % (mesh.dp / mesh.cp),
                     mesh.tp_of(rank), mesh.pp_of(rank), cp);
}

}  // namespace lockstep
