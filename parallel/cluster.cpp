#include "parallel/cluster.hpp"

#include <fmt/format.h>

#include <map>
#include <optional>

#include "parallel/comm/mpi.hpp"
#include "parallel/comm/nccl.hpp"
#include "parallel/device/noting.hpp"
#include "parallel/device/staging.hpp"
#include "parallel/strategy_error.hpp"
#include "parallel/trace/pairs.hpp"
#include "ref/error.hpp"

namespace lockstep {
namespace {

// Ranks of one stage take the same buffers in the same order: laid out once.
std::vector<i64> signature(const Trace& trace) {
  std::vector<i64> s;
  for (const Trace::Event& e : trace.events) {
    if (e.what == Trace::Event::take) s.insert(s.end(), {static_cast<i64>(medium_of(e.kind)), e.bytes});
    if (e.what == Trace::Event::give || e.what == Trace::Event::step) s.push_back(-1 - e.block);
  }
  return s;
}

// Ranks that share a key/value head each make the gradient of its weights, and no message evens them out.
void check_repeats(const Engine& engine, const Prepared& p) {
  if (p.mesh.kv_replicas == 1 || engine.repeats()) return;
  throw UserError(
      fmt::format("tp={} shares the model's {} key/value heads among ranks, whose weights would part by "
                  "LOCKSTEP_MATMUL=timed; take LOCKSTEP_MATMUL=first",
                  p.mesh.tp, p.run.model.kv_heads));
}

}  // namespace

Trace trace_rank(const Run& run, int rank, std::set<std::string>& names, std::vector<Posted>* posted,
                 std::uint64_t* fingerprint) {
  NotingDevice noting(rank);
  Trace& trace = noting.trace;
  Executor executor(run, rank, noting.device);
  executor.step(0);
  if (fingerprint) *fingerprint = noting.device.fingerprint();
  // Names belong to the executor, which ends here: keep the trace's and the ledger's own copies.
  auto keep = [&](const char*& name) { name = names.insert(name).first->c_str(); };
  if (posted) {
    *posted = noting.device.posted();
    for (Posted& m : *posted) keep(m.what);
  }
  for (Trace::Event& e : trace.events) {
    if (e.what == Trace::Event::start) keep(e.message.what);
    if (e.what == Trace::Event::take || e.what == Trace::Event::copy) keep(e.name);
  }
  // What outlives the step is given back after this line; the trace ends before it.
  trace.closed = true;
  return trace;
}

Prepared prepare(const Run& run) {
  Prepared p;
  p.run = run;
  p.mesh = run.mesh();
  std::map<std::vector<i64>, Layouts> known;
  for (int rank = 0; rank < p.mesh.size(); ++rank) {
    const Trace& trace = p.traces.emplace_back(
        trace_rank(run, rank, p.names, &p.posted.emplace_back(), &p.fingerprints.emplace_back()));
    auto [it, fresh] = known.try_emplace(signature(trace));
    if (fresh)
      it->second = {lay_out(trace, Medium::device), lay_out(trace, Medium::host),
                    lay_out(trace, Medium::disk)};
    p.layouts.push_back(it->second);
    const CommNeeds needs = comm_needs(trace, p.mesh, rank);
    p.needs.largest_bytes = std::max(p.needs.largest_bytes, needs.largest_bytes);
    p.needs.outstanding = std::max(p.needs.outstanding, needs.outstanding);
    p.needs.by_axis.resize(needs.by_axis.size());
    for (std::size_t a = 0; a < needs.by_axis.size(); ++a) {
      CommNeeds::OfAxis &all = p.needs.by_axis[a], one = needs.by_axis[a];
      all.largest_bytes = std::max(all.largest_bytes, one.largest_bytes);
      all.outstanding = std::max(all.outstanding, one.outstanding);
    }
    p.needs.in_flight.resize(std::max(p.needs.in_flight.size(), needs.in_flight.size()));
    for (std::size_t k = 0; k < needs.in_flight.size(); ++k)
      p.needs.in_flight[k] = std::max(p.needs.in_flight[k], needs.in_flight[k]);
  }
  p.deadlock = find_deadlock(p.traces, p.mesh);
  return p;
}

void refuse_deadlock(const Prepared& p) {
  if (p.deadlock.empty()) return;
  const std::string where = p.deadlock.substr(0, p.deadlock.find_last_not_of('\n') + 1);
  throw StrategyError(fmt::format("`{}` would hang: deadlock:\n{}", p.run.plan.line(), where));
}

void launch(const Prepared& p, const Launch& how, const std::function<void(RankView)>& body) {
  const Ops<float> ops = cpu_ops(how.isa);
  const bool fast = p.run.settings.fast;
  CommNeeds direct, needs = p.needs;
  if (how.fabrics) {
    check_order(p.traces, p.mesh);
    direct = channel_needs(p.needs, p.traces, p.mesh);
    needs = {.largest_bytes = NcclComm::kIntroduction};
  }
  const auto live = [&](int rank, Comm& comm) {
    std::unique_ptr<Engine> engine;
    // Ranks of one machine take its devices in turn.
    if (how.accelerator) engine = how.accelerator->engine(how.mpi ? how.mpi->rank_here() : rank, ops, fast);
    if (engine) check_repeats(*engine, p);
    // After the engine, so that whatever is stuck has ended before the engine waits for its kernels.
    std::unique_ptr<Fabric> fabric;
    std::optional<NcclComm> nccl;
    if (how.fabrics) {
      fabric = how.fabrics->fabric(engine.get(), how.mpi ? how.mpi->ranks_here() : p.mesh.size());
      nccl.emplace(comm, *fabric, p.mesh, rank, direct, NcclOptions{.fast = fast});
    }
    GuardPlacer guard;
    std::optional<ArenaPlacer> arena, host;
    const auto lay = [&](std::optional<ArenaPlacer>& placer, Medium medium) {
      const ArenaPlan& plan = p.layout(rank, medium);
      if (engine)
        placer.emplace(plan, engine->allocate(medium, plan.bytes + 64));
      else if (!how.guard)
        placer.emplace(plan);
    };
    lay(arena, Medium::device), lay(host, Medium::host);
    const auto placer = [&](std::optional<ArenaPlacer>& laid_out) -> Placer& {
      return laid_out ? static_cast<Placer&>(*laid_out) : guard;
    };
    Disk disk(p.layout(rank, Medium::disk), how.scratch, how.guard);
    Lanes lanes(how.threads);
    std::optional<Staging> staging;
    if (engine && !nccl) staging.emplace(comm, *engine, p.mesh, rank, p.needs);
    Comm* messages = &comm;
    if (nccl) messages = &*nccl;
    if (staging) messages = &*staging;
    Device device(rank, placer(arena), placer(host), disk, ops, lanes, messages, nullptr, how.timing,
                  engine.get());
    if (engine && how.graphs) device.keep_graphs();
    Executor executor(p.run, rank, device);
    try {
      body({rank, executor, device, how.guard ? &guard : nullptr});
    } catch (...) {
      comm.leave();  // while the buffers are still there
      throw;
    }
    if (nccl) nccl->finish();
  };
  if (how.mpi)
    how.mpi->run(p.mesh, needs, live);
  else
    LocalWorld(p.mesh, needs, how.timing).run(live);
}

}  // namespace lockstep
