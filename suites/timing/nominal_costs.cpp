#include "suites/timing/nominal_costs.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/work.hpp"
#include "parallel/trace/number_bytes.hpp"

namespace lockstep {
namespace {

// Bytes that cross each member's link.
double ring_bytes(const Message& m, int size) {
  const double bytes = static_cast<double>(m.blocks * m.n * type_bytes(m.type)), n = size;
  switch (m.verb) {
    case Verb::all_reduce:
      return 2 * (n - 1) / n * bytes;
    case Verb::reduce_scatter:  // n is a member's part
    case Verb::all_gather:
    case Verb::all_to_all:
      return (n - 1) * bytes;
    case Verb::broadcast:
    case Verb::send:
    case Verb::recv:
      return bytes;
  }
  return 0;
}

}  // namespace

Costs nominal_costs(const NominalRates& r) {
  Costs costs;
  costs.kernel = [r](const Trace::Event& e) {
    const Work work = work_of(e.name, e.numbers, 1);
    return work.kind == Work::rows ? work.bytes * bytes_of_a_number(e) / r.memory : work.flops / r.flops;
  };
  costs.message = [r](const Message& m, const Group& group) {
    return group.size() > 1 ? ring_bytes(m, group.size()) / r.link : 0.0;
  };
  auto on_disk = [](const Trace::Event& e) {
    return e.views[0].medium == Medium::disk || e.views[1].medium == Medium::disk;
  };
  costs.copy = [r, on_disk](const Trace::Event& e) {
    return e.numbers[0] * static_cast<double>(type_bytes(e.views[0].type)) / (on_disk(e) ? r.disk : r.host);
  };
  // To the host, from it, and the disk go beside each other.
  costs.copy_stream = [on_disk](const Trace::Event& e) {
    return on_disk(e) ? 2 : e.views[0].medium == Medium::host ? 0 : 1;
  };
  return costs;
}

std::string nominal_text(const NominalRates& r) {
  return fmt::format(
      "{} GFLOP/s in matmul and attention, {} GB/s of memory in other kernels, {} GB/s between ranks, {} "
      "GB/s to "
      "the host, {} GB/s to disk, nothing to begin",
      r.flops / 1e9, r.memory / 1e9, r.link / 1e9, r.host / 1e9, r.disk / 1e9);
}

}  // namespace lockstep
