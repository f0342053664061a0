#include "parallel/layout.hpp"

namespace lockstep {

namespace {
// The reference keeps final norm and head together; here each is its own unit, so that a tied head is cut
// into shards exactly as its embedding is.
int unit_of(const Param& p, int layers) {
  if (p.unit <= layers) return p.unit;
  return p.row_dim == Dim::vocab ? layers + 2 : layers + 1;
}
}  // namespace

LocalParams narrow(const std::vector<Param>& table, int layers, const std::vector<int>& units,
                   const std::function<Slice(const Param&)>& slice) {
  LocalParams out;
  out.table = table;
  out.units = units;
  out.of_table.assign(table.size(), -1);
  out.unit_elements.assign(layers + 3, 0);
  out.unit_weights.assign(layers + 3, 0);
  for (const int unit : units)
    for (int i = 0; i < static_cast<int>(table.size()); ++i) {
      const Param& p = table[i];
      if (unit_of(p, layers) != unit) continue;
      LocalParam l{i, slice(p), unit, out.unit_elements[unit], p.decayed};
      if (p.tied_to >= 0) l.alias = out.of_table[p.tied_to];
      out.of_table[i] = static_cast<int>(out.all.size());
      out.unit_elements[unit] += l.count();
      if (l.alias < 0) out.unit_weights[unit] += l.count();
      out.all.push_back(l);
    }
  return out;
}

bool counts_in_norm(const LocalParams& params, int local, const Mesh& mesh, int rank) {
  const LocalParam& l = params.all[local];
  if (params.table[l.param].tied_to >= 0) return false;  // the embedding's copy counts
  return l.slice.replicated == Axis::count || mesh.group(l.slice.replicated, rank).me == 0;
}

}  // namespace lockstep
