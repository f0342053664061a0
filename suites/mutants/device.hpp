// A device one of whose calls goes wrong: the active mutation's. All others pass.
#pragma once
#include <algorithm>
#include <climits>
#include <cmath>
#include <functional>
#include <string>
#include <tuple>
#include <vector>

#include "parallel/device/device.hpp"
#include "suites/mutants/mutation.hpp"

namespace lockstep {

class MutantDevice final : public PlainDevice {
 public:
  using PlainDevice::PlainDevice;

  void begin_step();
  void note_action(const char* name, int chunk, int microbatch);
  Buf take(const char* name, Kind kind, i64 elements) { return take(name, kind, elements, type_of(kind)); }
  Buf take(const char* name, Kind kind, i64 elements, Type type);

  template <class... P, class... A>
  void run(const Op<P...>& op, const A&... args) {
    pass_call();
    if (!hit(Door::run, op.name, written(args...))) {
      PlainDevice::run(op, args...);
    } else if (change() == Change::late) {
      late_ = [this, &op, kept = std::tuple(plain(args)...)] {
        std::apply([&](const auto&... a) { PlainDevice::run(op, a...); }, kept);
      };
      return;
    } else if (change() == Change::exchanged) {
      exchange(std::tuple(plain(args)...));
    } else if (change() != Change::dropped) {
      look_at(op.name, std::tuple(plain(args)...));
      int numbers = 0, operands = 0;
      const std::tuple changed{altered(plain(args), numbers, operands)...};  // in the order of arguments
      std::apply([&](const auto&... a) { PlainDevice::run(op, a...); }, changed);
      if (change() == Change::doubled) PlainDevice::run(op, args...);
    }
    run_late();
  }

  Request start(Message, const Buf& in, View from, const Buf& out, View to);
  Request start(const Message& m, const Buf& in, const Buf& out) {
    return start(m, in, in.view(), out, out.view());
  }
  void wait(Request&);
  void all_reduce(Axis, Reduce, const Buf&, View, i64 n, const char* what, int microbatch);
  Request start_copy(const Buf& to, View to_at, const Buf& from, View from_at, i64 elements,
                     const char* what);
  void wait_copy(Request&);
  void upload(View to, const void* from, i64 elements);

 private:
  using Door = Mutation::Door;
  using Change = Mutation::Change;
  static constexpr i64 kFurther = 64;  // elements: one alone may not change what is computed of them
  static constexpr int kNothing = INT_MAX, kLate = INT_MAX - 1;  // requests that are not the device's

  Change change() const { return mutation_->change; }
  bool hit(Door, const char* name, const std::string& tensor);  // is this the call?
  void pass_call();                                             // one more call of the program
  void run_late();
  void scale() const;
  const std::string& name_of(const View&) const;
  void pass_wait(Request&, bool copy);
  void make_wait(Request& r, bool copy) { copy ? PlainDevice::wait_copy(r) : PlainDevice::wait(r); }

  template <class First, class... A>
  const std::string& written(const First& first, const A&...) const {
    return name_of(plain(first));
  }
  // A handle would hold its buffer.
  template <class A>
  static auto plain(const A& a) {
    if constexpr (std::is_convertible_v<A, View>)
      return static_cast<View>(a);
    else
      return a;
  }
  template <class A>
  A altered(A a, int& numbers, int& operands) const {
    if constexpr (std::is_same_v<A, View>) {
      if (operands++ == mutation_->index && change() == Change::operand) return a.from(kFurther);
    } else if constexpr (std::is_arithmetic_v<A>) {
      if (numbers++ != number_) return a;
      if (change() == Change::own_count) return static_cast<A>(1.0 / count_);
      if (change() == Change::rescaled) return static_cast<A>(static_cast<double>(a) / std::exp2(seen_));
      if (mutation_->value) return static_cast<A>(*mutation_->value);
      if constexpr (std::is_same_v<A, bool>)
        return !a;
      else if constexpr (std::is_integral_v<A>)
        return a > 0 ? a - std::max<A>(1, a / 8) : 1;
      else
        return 2 * a;
    }
    return a;
  }
  void exchange(const std::tuple<View, View, View, i64>& add) {
    PlainDevice::run(ops().copy, std::get<0>(add), std::get<2>(add), std::get<3>(add));
  }
  void exchange(const std::tuple<View, View, i64>& copy) {
    PlainDevice::run(ops().add, std::get<0>(copy), std::get<0>(copy), std::get<1>(copy), std::get<2>(copy));
  }
  template <class Other>
  void exchange(const Other&) {}

  // Which number is wrong; and of cross entropy's gradient (logits, max, sum, labels, M, ...) the valid
  // labels.
  template <class... A>
  void look_at(const char*, const std::tuple<A...>& args) {
    number_ = -1;
    if (change() == Change::number || change() == Change::rescaled) number_ = mutation_->index;
    if (change() != Change::own_count) return;
    if constexpr (std::tuple_size_v<std::tuple<A...>> == 9) {
      number_ = 4;  // the scale
      count_ = mutation_->index;
      if (!computes()) return;
      const i32* labels = static_cast<const i32*>(std::get<3>(args).at);
      count_ *= static_cast<double>(
          std::count_if(labels, labels + std::get<4>(args), [](i32 label) { return label >= 0; }));
    }
  }

  const Mutation* const mutation_ = active_mutation;
  bool in_step_ = false;
  int number_ = -1;  // of this call, which is wrong
  double count_ = 1;
  int seen_ = 0;                    // of the calls with the mutation's name, in set-up or this step
  std::string action_;              // the present pass
  std::vector<std::string> names_;  // of buffers, by serial
  std::function<void()> late_;
  int target_ = -1, target_copy_ = -1;  // the wrong message or copy under way
  Request twin_, late_request_, held_request_;
  View scaled_{};
  i64 scaled_elements_ = 0;
  double factor_ = 1;
  Buf held_;
  int early_block_ = -1, calls_left_ = -1;
};

}  // namespace lockstep
