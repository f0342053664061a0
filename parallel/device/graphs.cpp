#include "parallel/device/graphs.hpp"

#include <stdexcept>

namespace lockstep {

void Graphs::begin() {
  if (!kept_.empty() && mode_ != Mode::replay) mode_ = mode_ == Mode::look ? Mode::keep : Mode::replay;
  within_ = true;
  next_ = 0;
}

void Graphs::end() {
  cut();
  within_ = false;
  if (next_ != kept_.size())
    throw std::logic_error("a step has fewer kernels than the graphs of the one before");
}

void Graphs::open() {
  open_ = true;
  calls_ = 0;
  if (mode_ == Mode::keep) engine_.begin_graph();
}

void Graphs::close() {
  open_ = false;
  if (mode_ == Mode::keep) engine_.end_graph();
  if (mode_ == Mode::look)
    kept_.push_back(calls_);
  else if (next_ >= kept_.size() || kept_[next_] != calls_)
    throw std::logic_error("a step's kernels are not those of the graphs of the one before");
  if (mode_ != Mode::look) engine_.run_graph(static_cast<int>(next_));
  ++next_;
}

}  // namespace lockstep
