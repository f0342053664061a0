// How long each event of a trace takes on a cluster: kernels by roofline (Williams et al. 2009), messages by
// suites/planner/collectives.hpp, copies by the link they cross.
#pragma once
#include "kernels/work.hpp"
#include "parallel/cluster.hpp"
#include "parallel/trace/number_bytes.hpp"
#include "parallel/trace/simulate.hpp"
#include "suites/planner/collectives.hpp"

namespace lockstep {

class CostModel {
 public:
  // `shares`: how many ranks send a part each of what one stage hands to the next (hand_over_shares()).
  CostModel(const Cluster& cluster, const Mesh& mesh, double shares = 1);
  double kernel(const Trace::Event&) const;  // seconds, as the next
  double message(const Message&) const;
  double beginning(const Message&) const;  // of a message that the ranks carry: where it starts
  double delay(const Message&) const;      // of dp's messages that are under way beside it
  double copy(const Trace::Event&) const;
  double issue(const Trace::Event&) const;  // by the host, of a kernel or message
  const Cluster& cluster() const { return cluster_; }
  Costs costs() const;  // for simulate(); refers to this

 private:
  double dispatched(const Trace::Event&) const;  // kernels
  double on_device(const Trace::Event&) const;
  double unfused_attention(const Work&, const Trace::Event&) const;

  const Cluster& cluster_;
  bool staged_;
  std::array<Placed, static_cast<int>(Axis::count)> placed_;
  const double shares_;
  std::array<double, 3> crowd_;  // by class of kernels: what computing side by side leaves of their rate
};

double hand_over_shares(const Cluster&, const Run&);

// Which stream a copy goes through: down to the host, up from it, or the disk's.
enum class CopyStream { down, up, disk };
CopyStream stream_of(const Trace::Event& copy);

// What a process holds beside an arena of so many bytes, with so many communicators.
double beside_the_arena(const Cluster&, double arena, int communicators);
int communicators(const Mesh&);

}  // namespace lockstep
