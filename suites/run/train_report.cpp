#include "suites/run/train_report.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <filesystem>

#include "ref/error.hpp"
#include "ref/weights.hpp"

namespace lockstep {

TrainReport::TrainReport(const Run& run, const TrainOptions& o, const Weights& initial,
                         const TrainingState* resumed)
    : run_(run),
      o_(o),
      done_(resumed ? resumed->steps : 0),
      table_(parameter_table(run.model, run.settings.leaves)),
      shard_bytes_(static_cast<i64>(o.shard_gb * 1e9)) {
  if (resumed && o.check && hash_of(initial) != resumed->origin.weights)
    throw UserError(fmt::format(
        "--resume {}: it began from other weights than these; --init names them, for --check", o.resume));
  if (!o.save.empty()) prepare_folder();
  if (!o.state.empty()) {
    check_state_folder(o.state, done_);
    origin_ = resumed ? resumed->origin : Origin{hash_of(initial), run.data->hash()};
  }
  if (!o.dump.empty()) {
    dump_.emplace(o.dump, run.model, run.settings, run.plan.line());
    for (std::size_t i = 0; i < table_.size(); ++i)
      if (table_[i].tied_to < 0) dump_->initial_weight(table_[i], initial[i].data());
  }
  if (!o.check || run.settings.fast) return;
  reference_.emplace(run.model, run.settings, *run.data, o.isa, o.threads, initial);
  for (i64 k = 0; k < done_; ++k) reference_->step();
}

void TrainReport::step(i64 k, const Assembly& assembly, StateKeeper* state, double seconds) {
  const Whole::Step& s = assembly.whole().steps[0];
  const double tokens = static_cast<double>(run_.settings.batch * run_.settings.seq);
  fmt::print("step {}  loss {:.6f}  gradient norm {:.6f}  lr {:.3g}  {:.0f} tokens/s\n", k, s.loss,
             s.grad_norm, learning_rate(run_.settings, k), tokens / seconds);
  hash_.add(table_, s);
  if (dump_) dump_step(k, s);
  if (!o_.save.empty() && k + 1 == run_.settings.steps) save_weights(o_.save, table_, s.weight, shard_bytes_);
  if (state)
    fmt::print("state: {}\n", state->write(o_.state, k + 1, run_, origin_, o_.model, s.weight, shard_bytes_));
  std::fflush(stdout);
  if (reference_ && !difference_) compare(k, assembly);
}

int TrainReport::finish() {
  if (dump_) dump_->close();
  if (!o_.save.empty()) fmt::print("weights: {}\n", o_.save);
  fmt::print("hash {}{}\n", hash_.text(), done_ ? fmt::format(" of the steps from {} on", done_) : "");
  if (!reference_) return 0;
  if (difference_)
    fmt::print("not equal to the single device: {}\n", difference_->text());
  else if (!vacuous_.empty())
    fmt::print("equal to the single device, which proves nothing: {}\n", vacuous_);
  else
    fmt::print("equal to the single device: {} steps{}, bit for bit\n", run_.settings.steps - done_,
               done_ ? fmt::format(" after {}", done_) : "");
  return difference_ || !vacuous_.empty() ? 1 : 0;
}

void TrainReport::prepare_folder() {
  std::error_code ignored;  // the next line's complaint says it better
  std::filesystem::create_directories(o_.save, ignored);
  save_model_config(o_.save + "/config.json", o_.model, run_.model);
}

void TrainReport::dump_step(i64 k, const Whole::Step& s) {
  const Settings& set = run_.settings;
  StepDump d;
  d.loss = s.loss, d.grad_norm = s.grad_norm, d.lr = learning_rate(set, k);
  d.tokens.resize(static_cast<std::size_t>(set.batch * set.seq));
  d.labels.resize(d.tokens.size());
  for (i64 i = 0; i < set.batch; ++i)
    sample(*run_.data, set, k, i, &d.tokens[i * set.seq], &d.labels[i * set.seq]);
  dump_->step(k, d);
  // Pads are the last rows, so the unpadded tensor is the front of the stored one.
  for (std::size_t i = 0; i < table_.size(); ++i)
    if (table_[i].tied_to < 0) dump_->gradient(k, table_[i], s.gradient[i].data());
  for (std::size_t i = 0; i < table_.size(); ++i)
    if (table_[i].tied_to < 0) dump_->weight(k, table_[i], s.weight[i].data());
}

void TrainReport::compare(i64 k, const Assembly& assembly) {
  const Whole expected{table_, {reference_->step()}};
  difference_ = locate(expected, assembly.whole(), assembly.holdings(), run_.mesh());
  if (difference_) difference_->first.step = k;
  if (vacuous_.empty()) vacuous_ = vacuous(expected.steps[0], k);
}

}  // namespace lockstep
