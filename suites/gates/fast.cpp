#include "suites/gates/fast.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <new>

#include "ref/error.hpp"
#include "ref/optimizer.hpp"
#include "ref/trainer.hpp"
#include "suites/gates/among.hpp"
#include "suites/run/reference.hpp"

namespace lockstep {

template <class T>
double distance(const Param& p, const std::vector<T>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size() && static_cast<i64>(i) < p.count(); ++i)
    sum += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
  return std::sqrt(sum);
}
template double distance(const Param&, const std::vector<float>&, const std::vector<double>&);
template double distance(const Param&, const std::vector<double>&, const std::vector<double>&);

template <class T>
double norm(const Param& p, const std::vector<T>& a) {
  return distance(p, a, std::vector<double>(a.size()));
}
template double norm(const Param&, const std::vector<float>&);
template double norm(const Param&, const std::vector<double>&);

namespace {

// The weights the step begins with: whole tensors, as the reference has them.
const Weights& weights_before(const Whole& reference, const Weights& initial, std::size_t step) {
  return step == 0 ? initial : reference.steps[step - 1].weight;
}

// AdamW as the reference does it, on the gradients that the plan says it has.
class ShadowOptimizer {
 public:
  ShadowOptimizer(const std::vector<Param>& table, const Settings& settings)
      : table_(table),
        settings_(settings),
        ops_(plain_ops<float>()),
        first_(table.size()),
        second_(table.size()) {}

  // The first thing in the plan's step that AdamW would not have done, or nothing. Of bf16 weights, their
  // float32 masters begin a compared step as copies, and what is found is those rounded.
  std::string judge(i64 step, const Weights& before, const Whole::Step& found) {
    i64 words[kSquareWords] = {};
    for (const auto& g : found.gradient)
      ops_.add_squares(lanes_, words, g.data(), static_cast<i64>(g.size()));
    const double length = root_of_squares(words);
    if (length != found.grad_norm)
      return fmt::format("step {}: gradient norm: {:.17g} instead of {:.17g}", step, found.grad_norm, length);
    const auto clip = static_cast<float>(clip_scale(settings_, length));
    for (std::size_t i = 0; i < table_.size(); ++i) {
      const std::vector<float>& g = found.gradient[i];
      std::vector<float> w(g.size());
      if (g.empty()) continue;
      const i64 n = static_cast<i64>(g.size());
      std::copy(before[i].begin(), before[i].end(), w.begin());
      first_[i].resize(g.size()), second_[i].resize(g.size());
      ops_.adamw(lanes_, w.data(), first_[i].data(), second_[i].data(), g.data(), n, clip,
                 adamw_step<float>(settings_, step, table_[i].decayed));
      if (settings_.weight_bytes == 2)
        for (float& x : w) x = bf16(x);
      for (i64 e = 0; e < table_[i].count(); ++e)
        if (w[e] != found.weight[i][e])
          return fmt::format("step {}: optimizer: weight of {} at [{}, {}]: {:.9g} instead of {:.9g}", step,
                             table_[i].name, e / table_[i].cols, e % table_[i].cols, found.weight[i][e],
                             w[e]);
    }
    return {};
  }

 private:
  const std::vector<Param>& table_;
  const Settings& settings_;
  Ops<float> ops_;
  Lanes lanes_{1};
  std::vector<std::vector<float>> first_, second_;
};

// Compares every loss and gradient with float64; keeps the worst in `verdict`.
void judge_gradients(const Whole& found, const FastReference& exact, FastVerdict& verdict) {
  auto see = [&](std::size_t step, const std::string& what, double error, double allowed) {
    const double part = error <= allowed ? error / allowed : std::isnan(error) ? INFINITY : error / allowed;
    if (!(part > verdict.worst)) return;
    verdict.worst = part;
    verdict.where = fmt::format("step {}: {}", step, what);
  };
  for (std::size_t k = 0; k < found.steps.size(); ++k) {
    const Whole::Step& f = found.steps[k];
    const FastReference::Step& e = exact.steps[k];
    for (std::size_t i = 0; i < found.table.size(); ++i)
      if (!f.gradient[i].empty())
        see(k, "gradient of " + found.table[i].name, distance(found.table[i], f.gradient[i], e.gradient[i]),
            e.allowed[i]);
    see(k, "loss", std::abs(f.loss - e.loss), e.loss_allowed);
  }
}

// Rank 0's, on every process of the job.
Weights shared(MpiWorld& job, Weights weights) {
  i64 tensors = static_cast<i64>(weights.size());
  job.from_first(&tensors, sizeof tensors);
  weights.resize(static_cast<std::size_t>(tensors));
  for (auto& tensor : weights) {
    i64 n = static_cast<i64>(tensor.size());
    job.from_first(&n, sizeof n);
    tensor.resize(static_cast<std::size_t>(n));
    job.from_first(tensor.data(), n * static_cast<i64>(sizeof(float)));
  }
  return weights;
}

}  // namespace

struct Float64::Training {
  Lanes lanes;
  const double floor;
  Trainer<double> trainer;
  Training(const ModelConfig& model, const Settings& settings, int threads)
      : lanes(threads), floor(fast_floor(settings)), trainer(model, settings, double_ops(), lanes) {}
};

Float64::Float64(const ModelConfig& model, const Settings& settings, int threads)
    : training_(new Training(model, settings, threads)) {}
Float64::~Float64() = default;

FastReference::Step Float64::step(const Weights& before, const i32* tokens, const i32* labels,
                                  const Whole::Step& reference) {
  Trainer<double>& trainer = training_->trainer;
  const std::vector<Param>& table = trainer.params();
  trainer.load(before);
  FastReference::Step step;
  step.loss = trainer.step(tokens, labels).loss;
  const auto see = [&](const std::string& what, double off) {
    if (off <= step.reference_off) return;  // which NaN is not
    step.reference_off = std::isnan(off) ? INFINITY : off;
    step.where = what;
  };
  const double loss_off = std::abs(reference.loss - step.loss);
  step.loss_allowed = kFastMultiple * loss_off + training_->floor * std::abs(step.loss);
  see("loss", loss_off / std::abs(step.loss));
  for (std::size_t i = 0; i < table.size(); ++i) {
    const Param& p = table[i];
    step.gradient.push_back(p.tied_to >= 0 ? std::vector<double>{} : trainer.gradient(static_cast<int>(i)));
    const std::vector<double>& g = step.gradient.back();
    const double off = g.empty() ? 0 : distance(p, reference.gradient[i], g), length = norm(p, g);
    step.allowed.push_back(kFastMultiple * off + training_->floor * length);
    if (!g.empty()) see("gradient of " + p.name, off / length);
  }
  return step;
}

FastReference fast_reference(const ModelConfig& model, const Settings& settings, const TokenFile& data,
                             const Whole& reference, const Weights& initial) {
  Float64 float64(model, settings);
  std::vector<i32> tokens(static_cast<std::size_t>(settings.batch * settings.seq)), labels(tokens.size());
  FastReference fast;
  for (std::size_t k = 0; k < reference.steps.size(); ++k) {
    for (i64 s = 0; s < settings.batch; ++s)
      sample(data, settings, static_cast<i64>(k), s, &tokens[s * settings.seq], &labels[s * settings.seq]);
    fast.steps.push_back(float64.step(weights_before(reference, initial, k), tokens.data(), labels.data(),
                                      reference.steps[k]));
  }
  return fast;
}

std::string strays(const FastReference& fast, const Settings& settings) {
  const auto worst = std::max_element(fast.steps.begin(), fast.steps.end(), [](const auto& a, const auto& b) {
    return a.reference_off < b.reference_off;
  });
  if (worst == fast.steps.end() || worst->reference_off <= reference_bound(settings)) return {};
  return fmt::format("step {}: {} is off float64's by {:.3g} of it, and {:.3g} may be rounding",
                     worst - fast.steps.begin(), worst->where, worst->reference_off,
                     reference_bound(settings));
}

FastVerdict judge_fast(const Prepared& p, const Whole& reference, const FastReference& exact,
                       const GateOptions& options, const Weights& initial) {
  FastVerdict verdict;
  if (verdict.messages = wrong_in_the_trace(p); !verdict.messages.empty()) return verdict;
  const i64 steps = p.run.settings.steps;
  MpiWorld* const job = options.mpi;
  try {
    Assembly assembly(p, steps, job);
    StepsOfRanks done{p};
    launch(p, options.launch(), [&](RankView v) {
      for (i64 k = 0; k < steps; ++k) {
        if (job)
          initialise(v, shared(*job, knows_all(job) ? weights_before(reference, initial, k) : Weights{}));
        else
          initialise(v, weights_before(reference, initial, k));
        const StepResult r = v.executor.step(
            k, [&] { assembly.gradients(k, v); }, [&] { assembly.weights(k, v); });
        assembly.result(k, r, v.rank);
        done.see(k, v);
      }
    });
    assembly.gather();
    verdict.messages = judge_messages(p, job, std::move(done.posted));
    done.gather(job);
    verdict.memory = judge_memory(p, {});
    if (!knows_all(job)) return verdict;
    if (verdict.messages == "pass") verdict.messages = judge_work(p, done.ran);
    verdict.numbers = assembly.problem();
    if (verdict.numbers.empty()) verdict.numbers = done.problem();
    const Whole& found = assembly.whole();
    judge_gradients(found, exact, verdict);
    if (verdict.numbers.empty() && verdict.worst > 1)
      verdict.numbers = fmt::format("{}: {:.3g} times the bound of fast mode", verdict.where, verdict.worst);
    ShadowOptimizer optimizer(found.table, p.run.settings);
    for (i64 k = 0; k < steps && verdict.numbers.empty(); ++k)
      verdict.numbers = optimizer.judge(k, weights_before(reference, initial, k), found.steps[k]);
    if (verdict.numbers.empty()) verdict.numbers = "pass";
  } catch (const UserError&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;  // what this machine has not, is no fault of the plan's
  } catch (const std::exception& e) {
    if (job) throw;  // the others would wait for this rank
    verdict.numbers = std::string("ended: ") + e.what();
  }
  return verdict;
}

}  // namespace lockstep
