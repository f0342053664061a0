#include "suites/whole.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "parallel/comm/mpi.hpp"

namespace lockstep {
namespace {

bool same(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0 || (a == 0 && b == 0); }
bool same(double a, double b) { return std::memcmp(&a, &b, sizeof a) == 0 || (a == 0 && b == 0); }

}  // namespace

struct RunHash::State {
  XXH3_state_t* hash = XXH3_createState();
  std::vector<float> plain;
  ~State() { XXH3_freeState(hash); }

  void tensor(const Param& p, const std::vector<float>& values) {
    plain.resize(std::min<std::size_t>(values.size(), p.count()));
    for (std::size_t i = 0; i < plain.size(); ++i) plain[i] = values[i] == 0 ? 0.f : values[i];
    XXH3_128bits_update(hash, plain.data(), plain.size() * sizeof(float));
  }
};

RunHash::RunHash() : state_(new State) { XXH3_128bits_reset(state_->hash); }
RunHash::~RunHash() = default;

void RunHash::add(const std::vector<Param>& table, const Whole::Step& s) {
  const double scalars[] = {s.loss == 0 ? 0.0 : s.loss, s.grad_norm == 0 ? 0.0 : s.grad_norm};
  XXH3_128bits_update(state_->hash, scalars, sizeof scalars);
  for (std::size_t i = 0; i < table.size(); ++i)
    state_->tensor(table[i], s.gradient[i]), state_->tensor(table[i], s.weight[i]);
}

std::string RunHash::text() const {
  const XXH128_hash_t h = XXH3_128bits_digest(state_->hash);
  return fmt::format("{:016x}{:016x}", h.high64, h.low64);
}

std::string Whole::hash() const {
  RunHash hash;
  for (const Step& s : steps) hash.add(table, s);
  return hash.text();
}

std::string Difference::text() const {
  std::string at = row < 0 ? "" : fmt::format(" at [{}, {}]", row, col);
  return fmt::format("step {}: {}{}: {:.9g} instead of {:.9g}", step, what, at, found, expected);
}

std::optional<Difference> first_difference(const Whole& a, const Whole& b) {
  for (std::size_t k = 0; k < a.steps.size(); ++k) {
    const Whole::Step &x = a.steps[k], &y = b.steps[k];
    const i64 step = static_cast<i64>(k);
    // Gradients first: they say where, a loss only says that.
    for (const bool weight : {false, true}) {
      for (std::size_t i = 0; i < a.table.size(); ++i) {
        const auto& u = weight ? x.weight[i] : x.gradient[i];
        const auto& v = weight ? y.weight[i] : y.gradient[i];
        const Param& p = a.table[i];
        for (std::size_t e = 0; e < u.size(); ++e)
          if (!same(u[e], v[e]))
            return Difference{step,
                              (weight ? "weight of " : "gradient of ") + p.name,
                              static_cast<i64>(e) / p.cols,
                              static_cast<i64>(e) % p.cols,
                              u[e],
                              v[e]};
      }
      if (!weight && !same(x.loss, y.loss)) return Difference{step, "loss", -1, -1, x.loss, y.loss};
      if (!weight && !same(x.grad_norm, y.grad_norm))
        return Difference{step, "gradient norm", -1, -1, x.grad_norm, y.grad_norm};
    }
  }
  return {};
}

std::string vacuous(const Whole& w, const Settings& settings) {
  bool clipped = false;
  for (std::size_t k = 0; k < w.steps.size(); ++k) {
    const Whole::Step& s = w.steps[k];
    if (!std::isfinite(s.loss) || !std::isfinite(s.grad_norm))
      return fmt::format("step {}: the loss is {}", k, s.loss);
    clipped |= s.grad_norm > settings.clip;
    for (std::size_t i = 0; i < w.table.size(); ++i) {
      bool any = s.gradient[i].empty();
      for (const float g : s.gradient[i]) any |= g != 0;
      if (!any) return fmt::format("step {}: the gradient of {} is all zero", k, w.table[i].name);
    }
  }
  if (w.steps.size() > 1 && !(w.steps.back().loss < w.steps.front().loss))
    return fmt::format("the loss does not fall: {} to {}", w.steps.front().loss, w.steps.back().loss);
  if (!clipped) return fmt::format("clipping at {} never acted", settings.clip);
  return {};
}

// Which places of the current assembly are written.
struct Assembly::Cells {
  std::vector<std::vector<std::vector<char>>> gradient, weight;  // [step][param][element]
  std::vector<char> result;                                      // [step]
};

// What a rank holds, on its way from one process to another of the same program.
struct Assembly::Parcel {
  enum class Of { gradient, weight, result } what;
  i64 step;
  StepResult result;
  LocalParam param;
  i64 first, n;  // a range of the parameter; n values follow
};

Assembly::Assembly(const Prepared& p, i64 steps, MpiWorld* mpi) : cells_(new Cells), mpi_(mpi) {
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
  for (i64 i = 0; i < n; ++i) {
    const i64 row = l.slice.row + (first + i) / l.slice.cols, col = l.slice.col + (first + i) % l.slice.cols;
    const i64 at = row * p.cols + col;
    if (!written[at]) {
      written[at] = 1, to[at] = values[i];
    } else if (!same(to[at], values[i]) && problem_.empty()) {
      problem_ =
          fmt::format("replicas differ: step {}: {} of {} at [{}, {}]: rank {} has {:.9g}, another {:.9g}",
                      step, weight ? "weight" : "gradient", p.name, row, col, rank, values[i], to[at]);
    }
  }
}

void Assembly::gradients(i64 step, const RankView& v) {
  std::vector<float> host;
  for (const Piece& piece : v.executor.pieces()) {
    host.resize(piece.n);
    v.device.download(host.data(), piece.gradient, piece.n);
    put(step, false, v.rank, v.executor.params().all[piece.local], piece.first, piece.n, host.data());
  }
}

void Assembly::weights(i64 step, const RankView& v) {
  std::vector<float> host;
  auto take = [&](int local, i64 first, i64 n, View at) {
    host.resize(n);
    v.device.download(host.data(), at, n);
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

void Assembly::result(i64 step, const StepResult& r, int rank) {
  if (mpi_ && mpi_->rank() > 0) {
    const Parcel parcel{Parcel::Of::result, step, r, {}, 0, 0};
    parcels_.append(reinterpret_cast<const char*>(&parcel), sizeof parcel);
    return;
  }
  std::lock_guard lock(mutex_);
  Whole::Step& s = whole_.steps[step];
  if (!std::exchange(cells_->result[step], 1)) {
    s.loss = r.loss, s.grad_norm = r.grad_norm;
  } else if (problem_.empty() && !(same(s.loss, r.loss) && same(s.grad_norm, r.grad_norm))) {
    problem_ = fmt::format(
        "replicas differ: step {}: loss and gradient norm: rank {} has {:.9g} and {:.9g}, another {:.9g} and "
        "{:.9g}",
        step, rank, r.loss, r.grad_norm, s.loss, s.grad_norm);
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
  for (std::size_t k = 0; k < whole_.steps.size(); ++k)
    for (std::size_t i = 0; i < whole_.table.size(); ++i)
      for (std::size_t e = 0; e < cells_->gradient[k][i].size(); ++e)
        if (!cells_->gradient[k][i][e] || !cells_->weight[k][i][e])
          return fmt::format("no rank holds {} at element {}", whole_.table[i].name, e);
  return {};
}

}  // namespace lockstep
