#include "suites/run/assembly.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "parallel/comm/mpi.hpp"
#include "suites/run/locate.hpp"

namespace lockstep {

bool Holding::holds(i64 row, i64 col) const {
  if (row < slice.row || row >= slice.row + slice.rows || col < slice.col || col >= slice.col + slice.cols)
    return false;
  const i64 at = (row - slice.row) * slice.cols + col - slice.col;
  return first <= at && at < first + n;
}

// Which places of the current assembly are written.
struct Assembly::Cells {
  std::vector<std::vector<std::vector<char>>> gradient, weight;  // [step][param][element]
  std::vector<std::vector<int>> result;                          // [step]: ranks that handed in the first's
};

// What a rank holds, on its way from one process to another of the same program.
struct Assembly::Parcel {
  enum class Of { gradient, weight, result } what;
  i64 step;
  StepResult result;
  LocalParam param;
  i64 first, n;  // a range of the parameter; n values follow
};

namespace {

// How many elements of a part, from its i-th on, lie side by side in the whole parameter.
i64 side_by_side(const LocalParam& l, i64 i, i64 cols) {
  return l.slice.cols == cols ? l.count() - i : l.slice.cols - i % l.slice.cols;
}

std::size_t first_unwritten(const std::vector<char>& cells) {
  const void* found = cells.empty() ? nullptr : std::memchr(cells.data(), 0, cells.size());
  return found ? static_cast<std::size_t>(static_cast<const char*>(found) - cells.data()) : cells.size();
}

}  // namespace

Assembly::Assembly(const Prepared& p, i64 steps, MpiWorld* mpi, Names names)
    : mesh_(p.mesh), names_(names), cells_(new Cells), mpi_(mpi) {
  whole_.table = parameter_table(p.run.model, p.run.settings.leaves);
  whole_.steps.resize(steps);
  cells_->gradient.resize(steps), cells_->weight.resize(steps), cells_->result.resize(steps);
  for (i64 k = 0; k < steps; ++k) {
    for (const Param& q : whole_.table) {
      const std::size_t n = q.tied_to >= 0 ? 0 : q.stored();
      whole_.steps[k].gradient.emplace_back(n), whole_.steps[k].weight.emplace_back(n);
      cells_->gradient[k].emplace_back(n), cells_->weight[k].emplace_back(n);
    }
  }
}
Assembly::~Assembly() = default;

void Assembly::put(i64 step, bool weight, int rank, const LocalParam& l, i64 first, i64 n,
                   const float* values) {
  if (mpi_ && mpi_->rank() > 0) {
    const Parcel parcel{weight ? Parcel::Of::weight : Parcel::Of::gradient, step, {}, l, first, n};
    parcels_.append(reinterpret_cast<const char*>(&parcel), sizeof parcel);
    parcels_.append(reinterpret_cast<const char*>(values), static_cast<std::size_t>(n) * sizeof(float));
    return;
  }
  const int index = whole_.table[l.param].tied_to >= 0 ? whole_.table[l.param].tied_to : l.param;
  const Param& p = whole_.table[index];
  Whole::Step& s = whole_.steps[step];
  std::vector<float>& to = weight ? s.weight[index] : s.gradient[index];
  std::vector<char>& written = weight ? cells_->weight[step][index] : cells_->gradient[step][index];
  std::lock_guard lock(mutex_);
  if (first < 0 || n < 0 || first + n > l.count()) {
    if (problem_.empty())
      problem_ = fmt::format("rank {} says that it holds elements {} to {} of {}, but its part has {}", rank,
                             first, first + n - 1, p.name, l.count());
    return;
  }
  for (i64 i = 0, run; i < n; i += run) {
    const i64 at = l.place(first + i, p.cols);
    run = std::min(n - i, side_by_side(l, first + i, p.cols));
    // Nearly always nobody has handed in any of these, or all have the same bits: that is seen at once.
    const auto cells = static_cast<std::size_t>(run), bytes = cells * sizeof(float);
    if (!std::memchr(&written[at], 1, cells)) {
      std::memcpy(&to[at], values + i, bytes);
      std::memset(&written[at], 1, cells);
    } else if (disagreement_ || std::memchr(&written[at], 0, cells) ||
               std::memcmp(&to[at], values + i, bytes) != 0) {
      for (i64 k = 0; k < run; ++k) put_one({step, weight, index, at + k}, rank, values[i + k]);
    }
  }
  holdings_.push_back({step, weight, rank, index, l.slice, first, n});
}

void Assembly::put_one(const Place& place, int rank, float value) {
  const auto& [step, weight, param, at] = place;
  Whole::Step& s = whole_.steps[step];
  float& there = (weight ? s.weight : s.gradient)[param][at];
  char& written = (weight ? cells_->weight : cells_->gradient)[step][param][at];
  Disagreement* known = disagreement_.get();
  if (!written) {
    written = 1, there = value;
  } else if (!same(there, value) && !known) {
    const Param& p = whole_.table[param];
    const std::string text = fmt::format("step {}: {} of {} at [{}, {}]: rank {} has {:.9g}, another {:.9g}",
                                         step, weight ? names_.weight : names_.gradient, p.name, at / p.cols,
                                         at % p.cols, rank, value, there);
    disagreement_.reset(new Disagreement{place, text, {}, {rank}});
    disagreement_->agree = holders(place);
  } else if (known && known->place == place) {
    (same(there, value) ? known->agree : known->differ).push_back(rank);
  }
}

// Ranks that have handed in this place so far.
std::vector<int> Assembly::holders(const Place& d) const {
  const i64 cols = whole_.table[d.param].cols;
  std::vector<int> ranks;
  for (const Holding& h : holdings_)
    if (h.step == d.step && h.weight == d.weight && h.param == d.param && h.holds(d.at / cols, d.at % cols))
      ranks.push_back(h.rank);
  return ranks;
}

void Assembly::gradients(i64 step, const RankView& v) {
  std::vector<float> host;
  for (const Piece& piece : v.executor.pieces()) {
    host.resize(piece.n);
    get(v.device, host.data(), piece.gradient, piece.n);
    put(step, false, v.rank, v.executor.params().all[piece.local], piece.first, piece.n, host.data());
  }
}

void Assembly::weights(i64 step, const RankView& v) {
  std::vector<float> host;
  auto take = [&](int local, i64 first, i64 n, View at) {
    host.resize(n);
    get(v.device, host.data(), at, n);
    put(step, true, v.rank, v.executor.params().all[local], first, n, host.data());
  };
  // Where every rank has whole weights, every copy is looked at, not only what it updated itself.
  Store& store = v.executor.store();
  if (store.resident())
    for (int l = 0; l < static_cast<int>(v.executor.params().all.size()); ++l)
      take(l, 0, v.executor.params().all[l].count(), store.kept(l));
  else
    for (const Piece& p : store.pieces()) take(p.local, p.first, p.n, p.weight);
}

void Assembly::state(const RankView& v, OfState in_gradients, OfState in_weights) {
  std::vector<float> host;
  i64 at = 0;
  for (const Piece& piece : v.executor.pieces()) {
    host.resize(piece.n);
    for (const auto& [of, weight] : {std::pair{in_gradients, false}, {in_weights, true}}) {
      get(v.device, host.data(), v.executor.home().state(at).*of, piece.n);
      put(0, weight, v.rank, v.executor.params().all[piece.local], piece.first, piece.n, host.data());
    }
    at += piece.n;
  }
}

void Assembly::result(i64 step, const StepResult& r, int rank) {
  if (mpi_ && mpi_->rank() > 0) {
    const Parcel parcel{Parcel::Of::result, step, r, {}, 0, 0};
    parcels_.append(reinterpret_cast<const char*>(&parcel), sizeof parcel);
    return;
  }
  std::lock_guard lock(mutex_);
  Whole::Step& s = whole_.steps[step];
  std::vector<int>& agree = cells_->result[step];
  if (agree.empty()) s.loss = r.loss, s.grad_norm = r.grad_norm;
  Disagreement* known = disagreement_.get();
  if (same(s.loss, r.loss) && same(s.grad_norm, r.grad_norm)) {
    agree.push_back(rank);
    if (known && known->place.param < 0 && known->place.step == step) known->agree.push_back(rank);
  } else if (!known) {
    const std::string text = fmt::format(
        "step {}: loss and gradient norm: rank {} has {:.9g} and {:.9g}, another {:.9g} and {:.9g}", step,
        rank, r.loss, r.grad_norm, s.loss, s.grad_norm);
    disagreement_.reset(new Disagreement{{step, false, -1, -1}, text, agree, {rank}});
  } else if (known->place.param < 0 && known->place.step == step) {
    known->differ.push_back(rank);
  }
}

void Assembly::gather() {
  if (!mpi_) return;
  static_assert(std::is_trivially_copyable_v<Parcel>);
  std::vector<float> values;
  mpi_->gather(parcels_, [&](int rank, const std::string& bytes) {
    for (std::size_t at = 0; at < bytes.size();) {
      Parcel parcel;
      std::memcpy(&parcel, bytes.data() + at, sizeof parcel);
      at += sizeof parcel;
      values.resize(static_cast<std::size_t>(parcel.n));
      if (parcel.n > 0) std::memcpy(values.data(), bytes.data() + at, values.size() * sizeof(float));
      at += values.size() * sizeof(float);
      if (parcel.what == Parcel::Of::result)
        result(parcel.step, parcel.result, rank);
      else
        put(parcel.step, parcel.what == Parcel::Of::weight, rank, parcel.param, parcel.first, parcel.n,
            values.data());
    }
  });
  parcels_.clear();
}

std::string Assembly::problem() const {
  if (!problem_.empty()) return problem_;
  if (const Disagreement* d = disagreement_.get())
    return "replicas differ: " + d->text + which_axis_parts(mesh_, d->agree, d->differ);
  for (std::size_t k = 0; k < whole_.steps.size(); ++k)
    for (std::size_t i = 0; i < whole_.table.size(); ++i)
      if (const std::size_t e =
              std::min(first_unwritten(cells_->gradient[k][i]), first_unwritten(cells_->weight[k][i]));
          e < cells_->gradient[k][i].size())
        return fmt::format("no rank holds {} at element {}", whole_.table[i].name, e);
  return {};
}

}  // namespace lockstep
