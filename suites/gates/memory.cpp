#include <fmt/format.h>

#include "suites/gates/gates.hpp"

namespace lockstep {

std::string judge_memory(const Prepared& p, const std::vector<i64>& guard_peaks) {
  for (int rank = 0; rank < p.mesh.size(); ++rank) {
    const Price formula = price(p.run.plan, p.run.model, p.run.settings, rank);
    const Peaks traced = peaks(p.traces[rank]);
    for (int k = 0; k < static_cast<int>(Kind::count); ++k)
      if (formula.peak[k] != traced.by_kind[k])
        return fmt::format("rank {}: {}: the formula says {} bytes, the trace {}", rank,
                           kind_name(static_cast<Kind>(k)), formula.peak[k], traced.by_kind[k]);
    if (!guard_peaks.empty() && guard_peaks[rank] != traced.total)
      return fmt::format("rank {}: {} bytes were alive at the peak of the guarded run, {} in the trace", rank,
                         guard_peaks[rank], traced.total);
    const ArenaPlan &device = p.layout(rank, Medium::device), &host = p.layout(rank, Medium::host),
                    &disk = p.layout(rank, Medium::disk);
    for (const auto& [what, bytes, live] :
         {std::tuple{"arenas have", device.bytes + host.bytes, device.live + host.live},
          std::tuple{"file has", disk.bytes, disk.live}})
      if (bytes * 100 > live * 105)
        return fmt::format("rank {}: the {} {} bytes for {} alive, more than 1.05 x", rank, what, bytes,
                           live);
  }
  return judge_extents(p);
}

}  // namespace lockstep
