#include "suites/mutants/device.hpp"

#include <utility>

namespace lockstep {

bool MutantDevice::hit(Door door, const char* name, const std::string& tensor) {
  if (!mutation_ || mutation_->door != door || mutation_->setup == in_step_) return false;
  const bool any_number = mutation_->name.find('#') != std::string::npos;
  if (mutation_->name != (any_number ? without_digits(name) : name) || mutation_->tensor != tensor)
    return false;
  if (!mutation_->action.empty() && mutation_->action != action_) return false;
  const int occurrence = seen_++;
  if (mutation_->rank >= 0 && mutation_->rank != rank()) return false;
  return mutation_->occurrence < 0 || mutation_->occurrence == occurrence;
}

void MutantDevice::begin_step() {
  in_step_ = true;
  seen_ = 0;
  action_.clear();
  late_ = {};
  held_.free();
  PlainDevice::begin_step();
}

void MutantDevice::note_action(const char* name, int chunk, int microbatch) {
  action_ = name;
  PlainDevice::note_action(name, chunk, microbatch);
}

const std::string& MutantDevice::name_of(const View& v) const {
  static const std::string none;
  return v.block < 0 || v.block >= static_cast<int>(names_.size()) ? none : names_[v.block];
}

// ---- kernels, and what happens beside them

void MutantDevice::pass_call() {
  if (early_block_ < 0 || calls_left_-- > 0) return;
  // Given back here; its handles' owners are now so many that the last of them never comes.
  Memory::Block& b = memory_.blocks_[std::exchange(early_block_, -1)];
  memory_.placer_of(b.kind).give(b.at, b.elements * type_bytes(b.type));
  if (trace_) trace_->give(b.serial);
  b.owners = INT_MAX / 2;
}

void MutantDevice::run_late() {
  if (const auto call = std::exchange(late_, {})) call();
}

// ---- buffers

Buf MutantDevice::take(const char* name, Kind kind, i64 elements, Type type) {
  const bool wrong = hit(Door::take, name, "");
  if (wrong && change() == Change::shorter) --elements;
  if (wrong && change() == Change::longer) ++elements;
  Buf buf = PlainDevice::take(name, kind, elements, type);
  const int serial = buf.view().block;
  if (serial >= static_cast<int>(names_.size())) names_.resize(serial + 1);
  names_[serial] = name;
  if (wrong && change() == Change::never) held_ = buf;
  if (wrong && change() == Change::early && mutation_->after[rank()] >= 0) {
    calls_left_ = mutation_->after[rank()];
    // The handle's block, which only memory knows: the one with this serial.
    for (int b = 0; b < static_cast<int>(memory_.blocks_.size()); ++b)
      if (memory_.blocks_[b].serial == serial) early_block_ = b;
  }
  return buf;
}

void MutantDevice::upload(View to, const void* from, i64 elements) {
  if (!hit(Door::upload, "upload", name_of(to))) return PlainDevice::upload(to, from, elements);
  if (change() == Change::count) PlainDevice::upload(to, from, elements - 1);
}

// ---- messages

Request MutantDevice::start(Message m, const Buf& in, View from, const Buf& out, View to) {
  pass_call();
  if (!hit(Door::start, m.what, verb_name(m.verb))) return PlainDevice::start(m, in, from, out, to);
  Request nothing{kNothing, in, out};
  switch (change()) {
    case Change::dropped:
      return nothing;
    case Change::group:
      m.axis = static_cast<Axis>(mutation_->index);
      break;
    case Change::peer:
      m.peer = (m.peer + 1) % mutation_->index;
      break;
    case Change::count:
      --m.n;
      break;
    case Change::half:
      m.n /= 2;
      break;
    case Change::place:
      (from.block >= 0 ? from : to) = (from.block >= 0 ? from : to).from(1);
      break;
    case Change::number_type:
      from = from.as(Type::i32), to = to.as(Type::i32);
      break;
    case Change::reduction:
      m.reduce = m.reduce == Reduce::sum ? Reduce::max : Reduce::sum;
      break;
    case Change::tag:
      ++m.tag;
      break;
    case Change::late:
      late_ = [this, m, in, from, out, to] { late_request_ = PlainDevice::start(m, in, from, out, to); };
      return {kLate, in, out};
    default:
      break;
  }
  Request r = PlainDevice::start(m, in, from, out, to);
  if (change() == Change::at_once) {
    PlainDevice::wait(r);
    return nothing;
  }
  if (change() == Change::doubled) twin_ = PlainDevice::start(m, in, from, out, to);
  if (change() == Change::scaled) scaled_ = to, scaled_elements_ = m.blocks * m.n, factor_ = 0.5;
  if (change() == Change::gathered) scaled_ = to, scaled_elements_ = m.blocks * m.n / 2, factor_ = 2;
  target_ = r.id;
  return r;
}

// What has arrived, behind everybody's back.
void MutantDevice::scale() const {
  if (!computes()) return;
  const auto all = [&](auto* numbers) {
    for (i64 i = 0; i < scaled_elements_; ++i)
      numbers[i] = static_cast<std::decay_t<decltype(*numbers)>>(static_cast<double>(numbers[i]) * factor_);
  };
  if (scaled_.type == Type::f64)
    all(static_cast<double*>(scaled_.at));
  else if (scaled_.type == Type::i64)
    all(static_cast<i64*>(scaled_.at));
  else
    all(static_cast<float*>(scaled_.at));
}

void MutantDevice::wait(Request& r) { pass_wait(r, false); }
void MutantDevice::wait_copy(Request& r) { pass_wait(r, true); }

void MutantDevice::pass_wait(Request& r, bool copy) {
  pass_call();
  int& target = copy ? target_copy_ : target_;
  if (r.id == kNothing) {
    r = {};
  } else if (r.id == kLate) {
    run_late();
    make_wait(late_request_, copy);
    r = {};
  } else if (target < 0 || r.id != target) {
    make_wait(r, copy);
  } else {
    target = -1;
    if (change() == Change::never_waited_for) {
      r = {};
    } else if (change() == Change::waited_late) {
      held_request_ = std::move(r);
      r = {};
      late_ = [this, copy] { make_wait(held_request_, copy); };
    } else {
      Request again;
      again.id = r.id;
      make_wait(r, copy);
      if (change() == Change::waited_twice) make_wait(again, copy);
      if (change() == Change::doubled) make_wait(twin_, copy);
      if (change() == Change::scaled || change() == Change::gathered) scale();
    }
  }
}

void MutantDevice::all_reduce(Axis axis, Reduce reduce, const Buf& buf, View at, i64 n, const char* what,
                              int microbatch) {
  Message m;
  m.verb = Verb::all_reduce;
  m.axis = axis;
  m.reduce = reduce;
  m.n = n;
  m.what = what;
  m.microbatch = microbatch;
  Request r = start(m, buf, at, buf, at);
  wait(r);
}

// ---- copies

Request MutantDevice::start_copy(const Buf& to, View to_at, const Buf& from, View from_at, i64 elements,
                                 const char* what) {
  pass_call();
  if (!hit(Door::copy, what, "")) return PlainDevice::start_copy(to, to_at, from, from_at, elements, what);
  Request nothing{kNothing, from, to};
  if (change() == Change::dropped) return nothing;
  if (change() == Change::count) --elements;
  if (change() == Change::place) from_at = from_at.from(1);
  Request r = PlainDevice::start_copy(to, to_at, from, from_at, elements, what);
  if (change() == Change::at_once) {
    PlainDevice::wait_copy(r);
    return nothing;
  }
  if (change() == Change::doubled) twin_ = PlainDevice::start_copy(to, to_at, from, from_at, elements, what);
  target_copy_ = r.id;
  return r;
}

}  // namespace lockstep
