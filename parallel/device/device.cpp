#include "parallel/device/device.hpp"

#include <algorithm>
#include <cstring>
#include <memory>

#include "ref/error.hpp"

namespace lockstep {

void PlainDevice::set_types(const Settings& s) {
  const auto type = [](int bytes) { return bytes == 4 ? Type::f32 : Type::bf16; };
  if (comm_ && (s.weight_bytes != s.activation_bytes || s.gradient_bytes != 4))
    throw UserError(
        "weights and activations are computed with as one type, float32 or bf16, and gradients are summed in "
        "float32: other mixtures can be traced and priced");
  if (comm_ && s.activation_bytes == 2 && !ops_.matmul.mixed)
    throw UserError("this device computes in float32 only: bf16 can be traced and priced");
  partial_ = s.fast ? type(s.activation_bytes) : Type::f32;
  for (const Kind k : {Kind::weights, Kind::gathered}) types_[static_cast<int>(k)] = type(s.weight_bytes);
  for (const Kind k : {Kind::gradients, Kind::reducing}) types_[static_cast<int>(k)] = type(s.gradient_bytes);
  for (const Kind k : {Kind::activations, Kind::messages, Kind::waiting, Kind::buffers})
    types_[static_cast<int>(k)] = type(s.activation_bytes);
}

void PlainDevice::begin_step() {
  memory_.begin_step();
  posted_.clear();
  kernels_ = started_copies_ = host_bytes_ = 0;
  requests_before_ = requests_;
  done_.begin();
  end_action();
  if (trace_) trace_->events.push_back({Trace::Event::step});
}

void PlainDevice::end_action() {
  if (acts_) engine_->leave();
  acts_ = false;
}

void PlainDevice::note_action(const char* name, int chunk, int microbatch) {
  if (onlooker_) onlooker_->begins(name, chunk, microbatch);
  if (!trace_ && !engine_) return;
  Trace::Event e{Trace::Event::action};
  e.name = name;
  e.chunk = chunk;
  e.microbatch = microbatch;
  if (engine_) {
    end_action();
    engine_->enter(e.title().c_str());
    acts_ = true;
  }
  if (trace_) trace_->events.push_back(std::move(e));
}

Request PlainDevice::start(Message m, const Buf& in, View from, const Buf& out, View to) {
  m.in = in_memory(from).at;
  m.out = in_memory(to).at;
  m.type = from.block >= 0 ? from.type : to.type;
  posted_.push_back({m.axis, m.verb, m.type, m.reduce, m.peer, m.what, m.microbatch, m.blocks * m.n});
  Request r{requests_, in, out};
  r.number = requests_++;
  for (const char* word : {verb_name(m.verb), axis_name(m.axis), type_name(m.type), m.what}) done_.add(word);
  for (const i64 number : {static_cast<i64>(m.reduce), i64{m.peer}, i64{m.microbatch}, m.tag, m.blocks, m.n})
    done_.add(number);
  Trace::Event e{Trace::Event::start};
  e.message = m;
  if (trace_) {
    e.request = r.id;
    e.ends = {from.block, to.block};
    e.firsts = {from.first, to.first};
    trace_->events.push_back(e);
  }
  if (onlooker_) onlooker_->does();
  {
    const NamedRange range(engine_, engine_ ? e.title().c_str() : "");
    cut_graph();
    if (comm_) r.id = comm_->start(m);
  }
  if (onlooker_) onlooker_->did();
  r.stream = axis_name(m.axis);
  return r;
}

void PlainDevice::wait(Request& r) {
  done_.add("wait"), done_.add(r.number - requests_before_);
  if (trace_) {
    Trace::Event e{Trace::Event::wait};
    e.request = r.id;
    trace_->events.push_back(std::move(e));
  }
  if (onlooker_) onlooker_->waits(r.stream), onlooker_->does();
  {
    const NamedRange range(engine_, "wait for a message");
    cut_graph();
    if (comm_) comm_->wait(r.id);
  }
  if (onlooker_) onlooker_->did(), onlooker_->goes_on();
  r = {};
}

void PlainDevice::all_reduce(Axis axis, Reduce reduce, const Buf& buf, View at, i64 n, const char* what,
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

Request PlainDevice::start_copy(const Buf& to, View to_at, const Buf& from, View from_at, i64 elements,
                                const char* what) {
  Request r{requests_, from, to};
  r.number = requests_++;
  ++started_copies_;
  done_.add(what), done_.add(elements);
  if (trace_) {
    Trace::Event e{Trace::Event::copy};
    e.request = r.id;
    e.name = what;
    e.views = {to_at, from_at};
    e.numbers = {static_cast<double>(elements)};
    trace_->events.push_back(std::move(e));
  }
  if (onlooker_) onlooker_->does();
  {
    const NamedRange range(engine_, what);
    cut_graph();
    if (comm_) r.id = copies_.start(to_at, from_at, elements);
  }
  if (onlooker_) onlooker_->did();
  return r;
}

void PlainDevice::wait_copy(Request& r) {
  done_.add("wait"), done_.add(r.number - requests_before_);
  if (trace_) {
    Trace::Event e{Trace::Event::copied};
    e.request = r.id;
    trace_->events.push_back(std::move(e));
  }
  if (onlooker_) onlooker_->waits(r.stream), onlooker_->does();
  {
    const NamedRange range(engine_, "wait for a copy");
    cut_graph();
    if (comm_) copies_.wait(r.id);
  }
  if (onlooker_) onlooker_->did(), onlooker_->goes_on();
  r = {};
}

void PlainDevice::upload(View to, const void* from, i64 elements) {
  done_.add("upload"), done_.add(elements);
  host_bytes_ += elements * type_bytes(to.type);
  if (!comm_) return;
  cut_graph();
  const i64 bytes = elements * type_bytes(to.type);
  if (to.medium == Medium::disk)
    disk_.write(to.at, from, bytes);
  else if (engine_ && to.medium == Medium::device)
    engine_->upload(to.at, from, bytes);
  else
    std::memcpy(to.at, from, static_cast<std::size_t>(bytes));
}

void PlainDevice::download(void* to, View from, i64 elements) {
  done_.add("download"), done_.add(elements);
  host_bytes_ += elements * type_bytes(from.type);
  look(to, from, elements);
}

void PlainDevice::look(void* to, View from, i64 elements) {
  if (!comm_) return;
  cut_graph();
  const i64 bytes = elements * type_bytes(from.type);
  if (from.medium == Medium::disk)
    disk_.read(to, from.at, bytes);
  else if (engine_ && from.medium == Medium::device)
    engine_->download(to, from.at, bytes);
  else
    std::memcpy(to, from.at, static_cast<std::size_t>(bytes));
}

void put(Device& d, View to, const float* from, i64 n) {
  if (to.type != Type::bf16) return d.upload(to, from, n);
  constexpr i64 kAtOnce = i64{1} << 20;
  const i64 room = std::min(n, kAtOnce);
  const auto rounded = std::make_unique_for_overwrite<bf16[]>(static_cast<std::size_t>(room));
  for (i64 i = 0; i < n; i += room) {
    const i64 some = std::min(room, n - i);
    for (i64 j = 0; j < some; ++j) rounded[j] = bf16(from[i + j]);
    d.upload(to.from(i), rounded.get(), some);
  }
}

void get(Device& d, float* to, View from, i64 n) {
  if (from.type != Type::bf16) return d.look(to, from, n);
  std::vector<bf16> stored(static_cast<std::size_t>(n));
  d.look(stored.data(), from, n);
  std::copy(stored.begin(), stored.end(), to);
}

}  // namespace lockstep
