#include "suites/run/locate.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <map>
#include <set>

namespace lockstep {
namespace {

using Elements = std::vector<i64>;          // elements of a tensor
using Differences = std::vector<Elements>;  // by parameter of the table: where it differs

Differences differing(const std::vector<std::vector<float>>& expected,
                      const std::vector<std::vector<float>>& found) {
  Differences tensors(expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i)
    for (std::size_t e = 0; e < expected[i].size(); ++e)
      if (!same(expected[i][e], found[i][e])) tensors[i].push_back(static_cast<i64>(e));
  return tensors;
}

// ---- Words for the pattern ------------------------------------------------------------------------------

// "q_proj": of a layer's parameter, what its layers have in common.
std::string kind(const Param& p) {
  const std::size_t end = p.name.rfind('.');
  return p.name.substr(p.name.rfind('.', end - 1) + 1, end - p.name.rfind('.', end - 1) - 1);
}

int last_unit(const std::vector<Param>& table) { return table.back().unit; }

std::string unit_name(const std::vector<Param>& table, int unit) {
  return unit == 0                  ? "the embedding"
         : unit == last_unit(table) ? "the final norm and head"
                                    : fmt::format("layer {}", unit - 1);
}

// What computes the input of this parameter's gradient, if all that comes before in backward is right.
std::string computed_by(const std::vector<Param>& table, int param) {
  const int unit = table[param].unit, layer = unit - 1;
  if (unit == last_unit(table))
    return table[param].row_dim == Dim::vocab ? "the gradient of the loss"
                                              : "the gradient of the loss, or the head's input gradient";
  switch ((param - 1) % layer_params) {
    case down_proj:
      return fmt::format("what layer {} gets from {}: that one's input gradient, or its way here", layer,
                         unit_name(table, unit + 1));
    case up_proj:
    case gate_proj:
      return fmt::format("layer {}'s backward through down_proj and SwiGLU", layer);
    case post_norm:
      return fmt::format("the input gradient of layer {}'s gate_proj and up_proj, or its sum over ranks",
                         layer);
    case o_proj:
      return fmt::format("layer {}'s backward of post_attention_layernorm", layer);
    case input_norm:
      return fmt::format("the input gradient of layer {}'s q_proj, k_proj and v_proj, or its sum over ranks",
                         layer);
    default:
      return fmt::format("layer {}'s backward of attention", layer);
  }
}

std::string pattern_of_gradients(const std::vector<Param>& table, const Differences& differ) {
  int first = -1;  // in order of backward: from the table's end
  int count = 0, of = 0;
  std::set<int> units;
  std::set<std::string> kinds;
  bool all_below = true;
  for (int i = static_cast<int>(table.size()); i-- > 0;) {
    if (table[i].tied_to >= 0) continue;
    ++of;
    if (differ[i].empty()) {
      if (first >= 0 && table[i].unit < table[first].unit) all_below = false;
      continue;
    }
    if (first < 0) first = i;
    ++count;
    units.insert(table[i].unit), kinds.insert(kind(table[i]));
  }
  const std::string many = fmt::format("{} of {} gradients differ", count, of);
  if (count == 1) return "only this tensor differs: its own gradient, or how that is summed and sent";
  if (count == of) return many + ": the gradient of the loss, or a factor on all of them";
  if (units.size() == 1)
    return fmt::format("{}, all in {} and none below: its weight gradients, or how they are summed and sent",
                       many, unit_name(table, *units.begin()));
  if (all_below) return fmt::format("{}, from there down: {}", many, computed_by(table, first));
  if (kinds.size() <= 3) return fmt::format("{}, only {}", many, fmt::join(kinds, ", "));
  return fmt::format("{}, none before it in backward", many);
}

// ---- The axis -------------------------------------------------------------------------------------------

constexpr std::size_t kEnough = 8;  // values that lie on one side by chance once in 2^7 times

using Indices = std::bitset<kMaxRanks>;  // along an axis

int along(const Mesh& mesh, Axis axis, int rank) {
  return axis == Axis::dp   ? mesh.dp_of(rank)
         : axis == Axis::tp ? mesh.tp_of(rank)
         : axis == Axis::cp ? mesh.cp_of(rank)
                            : mesh.pp_of(rank);
}
// In a plan's words, of which dp and cp together are the mesh's dp.
std::string name_of(const Mesh& mesh, Axis axis) {
  return axis == Axis::dp && mesh.cp > 1 ? "dp x cp" : axis_name(axis);
}
std::string index_of(const Mesh& mesh, Axis axis, int i) {
  if (axis != Axis::dp || mesh.cp == 1) return std::to_string(i);
  return fmt::format("(dp {}, cp {})", i % (mesh.dp / mesh.cp), i / (mesh.dp / mesh.cp));
}
int size_of(const Mesh& mesh, Axis axis) {
  return axis == Axis::dp ? mesh.dp : axis == Axis::tp ? mesh.tp : axis == Axis::cp ? mesh.cp : mesh.pp;
}

class Owners {
 public:
  Owners(const std::vector<Param>& table, const std::vector<Holding>& holdings, const Mesh& mesh)
      : table_(table), mesh_(mesh), of_(table.size()) {
    for (const Holding& h : holdings)
      if (h.step == 0 && !h.weight) of_[h.param].push_back(&h);
  }

  // Does the axis cut tensors that differ, and do the differing values all lie with some of its indices?
  std::string cut_by(Axis axis, const Differences& differ) const {
    Indices dirty;
    std::size_t values = 0;
    for (std::size_t i = 0; i < differ.size(); ++i) {
      if (differ[i].empty() || !cuts(axis, static_cast<int>(i))) continue;
      values += differ[i].size();
      for (const i64 at : differ[i]) dirty |= holders(axis, static_cast<int>(i), at);
    }
    if (values < kEnough || dirty.none() || static_cast<int>(dirty.count()) == size_of(mesh_, axis))
      return {};
    std::vector<std::string> indices;
    for (int i = 0; i < size_of(mesh_, axis); ++i)
      if (dirty[i]) indices.push_back(index_of(mesh_, axis, i));
    return fmt::format(
        "all {0} differing values of tensors that {1} cuts lie with its rank{2} {3}: suspect {1}", values,
        name_of(mesh_, axis), indices.size() == 1 ? "" : "s", fmt::join(indices, ", "));
  }

  // Do only tensors differ that the ranks of an axis hold alike, while the same ranks cut others?
  std::string held_alike(const Differences& differ) const {
    std::set<Axis> axes;
    int tensors = 0;
    for (std::size_t i = 0; i < differ.size(); ++i) {
      if (differ[i].empty()) continue;
      if (of_[i].empty()) return {};
      ++tensors;
      axes.insert(of_[i].front()->slice.replicated);
    }
    if (axes.size() != 1 || *axes.begin() == Axis::count) return {};
    const Axis axis = *axes.begin();
    return fmt::format("only what ranks of {0} hold alike differs ({1} tensor{2}): suspect a sum over {0}",
                       axis_name(axis), tensors, tensors == 1 ? "" : "s");
  }

  // Does all of a stage differ and no other, or all from a stage's last layer down?
  std::string stage(const Differences& differ) const {
    if (mesh_.pp == 1) return {};
    std::set<int> dirty, clean;
    int first = -1;
    for (int i = static_cast<int>(table_.size()); i-- > 0;) {
      if (table_[i].tied_to >= 0) continue;
      if (first < 0 && !differ[i].empty()) first = i;
      for (const Holding* h : of_[i])
        (differ[i].empty() ? clean : dirty).insert(along(mesh_, Axis::pp, h->rank));
    }
    const bool apart = std::none_of(dirty.begin(), dirty.end(), [&](int s) { return clean.count(s); });
    if (apart && !clean.empty())
      return fmt::format("all of stage {} differs and nothing of the others: suspect pp",
                         fmt::join(dirty, ", "));
    const int unit = table_[first].unit;
    if (unit == 0 || unit == last_unit(table_) || (first - 1) % layer_params != down_proj) return {};
    const int here = stage_of(first),
              above = unit + 1 == last_unit(table_) ? here : stage_of(first + layer_params);
    if (here == above) return {};
    return fmt::format("layer {} is the first that stage {} gets from stage {}: suspect pp", unit - 1, here,
                       above);
  }

 private:
  int stage_of(int param) const {
    return of_[param].empty() ? -1 : along(mesh_, Axis::pp, of_[param].front()->rank);
  }

  Indices holders(Axis axis, int param, i64 at) const {
    Indices indices;
    const i64 cols = table_[param].cols;
    for (const Holding* h : of_[param])
      if (h->holds(at / cols, at % cols)) indices.set(along(mesh_, axis, h->rank));
    return indices;
  }

  // Several of the axis's indices hold parts of the tensor, and not all of them the same.
  bool cuts(Axis axis, int param) const {
    std::map<int, std::set<std::array<i64, 6>>> parts;
    for (const Holding* h : of_[param]) {
      const Slice& s = h->slice;
      parts[along(mesh_, axis, h->rank)].insert({s.row, s.rows, s.col, s.cols, h->first, h->n});
    }
    return std::any_of(parts.begin(), parts.end(),
                       [&](const auto& p) { return p.second != parts.begin()->second; });
  }

  const std::vector<Param>& table_;
  const Mesh& mesh_;
  std::vector<std::vector<const Holding*>> of_;  // by parameter
};

std::string axis_behind(const Mesh& mesh, const Owners& owners, const Differences& differ) {
  for (const std::string& found : {owners.cut_by(Axis::tp, differ), owners.cut_by(Axis::dp, differ),
                                   owners.held_alike(differ), owners.stage(differ)})
    if (!found.empty()) return found;
  std::size_t values = 0;
  for (const Elements& e : differ) values += e.size();
  if (mesh.size() == 1 || values < kEnough) return {};
  return fmt::format("it follows no axis: what every rank computes{}",
                     mesh.dp > 1 ? ", or a sum over samples or " + name_of(mesh, Axis::dp) : "");
}

}  // namespace

std::string Finding::text() const {
  std::string text = first.text();
  if (gradient)
    text += fmt::format("; {} at [{}, {}]: {:.9g} instead of {:.9g}", gradient->what, gradient->row,
                        gradient->col, gradient->found, gradient->expected);
  text += "; " + pattern;
  if (!axis.empty()) text += "; " + axis;
  return text;
}

std::optional<Finding> locate(const Whole& expected, const Whole& found, const std::vector<Holding>& holdings,
                              const Mesh& mesh) {
  const auto first = first_difference(expected, found);
  if (!first) return {};
  Finding finding{*first, {}, {}, {}};
  const Whole::Step &x = expected.steps[first->step], &y = found.steps[first->step];
  const Owners owners(expected.table, holdings, mesh);
  const Differences gradients = differing(x.gradient, y.gradient), weights = differing(x.weight, y.weight);
  const bool any_gradient =
      std::any_of(gradients.begin(), gradients.end(), [](const Elements& p) { return !p.empty(); });

  if (!same(x.loss, y.loss)) {
    Whole alike{expected.table, {y}};
    alike.steps[0].loss = x.loss;
    finding.gradient = first_difference({expected.table, {x}}, alike);
    if (!any_gradient) finding.gradient.reset();
    finding.pattern =
        any_gradient ? "the loss differs before any backward: the forward pass, or the weights it began with"
                     : "no gradient differs: how the losses are summed and sent";
    finding.axis = any_gradient ? axis_behind(mesh, owners, gradients) : "";
  } else if (any_gradient) {
    finding.pattern = "the loss is equal, " + pattern_of_gradients(expected.table, gradients);
    finding.axis = axis_behind(mesh, owners, gradients);
  } else if (!same(x.grad_norm, y.grad_norm)) {
    finding.pattern = "loss and gradients are equal: the sum of squares";
  } else {
    const auto wrong =
        std::count_if(weights.begin(), weights.end(), [](const Elements& p) { return !p.empty(); });
    const auto all =
        std::count_if(x.weight.begin(), x.weight.end(), [](const auto& w) { return !w.empty(); });
    finding.pattern = fmt::format(
        "loss, gradients and their norm are equal, {} of {} weights differ: clipping, the optimizer, or how "
        "weights "
        "are sent",
        wrong, all);
    finding.axis = axis_behind(mesh, owners, weights);
  }
  return finding;
}

std::string which_axis_parts(const Mesh& mesh, const std::vector<int>& agree,
                             const std::vector<int>& differ) {
  // A plan's dp: ranks of the same sequences, whichever segments they have, are in one place along it.
  const auto at = [&](Axis axis, int rank) {
    return along(mesh, axis, rank) % (axis == Axis::dp ? mesh.dp / mesh.cp : size_of(mesh, axis));
  };
  std::vector<std::string> axes;
  for (const Axis axis : {Axis::dp, Axis::tp, Axis::cp, Axis::pp}) {
    std::set<int> a, b;
    for (const int rank : agree) a.insert(at(axis, rank));
    for (const int rank : differ) b.insert(at(axis, rank));
    if (std::none_of(a.begin(), a.end(), [&](int i) { return b.count(i) > 0; }))
      axes.push_back(axis_name(axis));
  }
  if (!axes.empty())
    return fmt::format("; ranks of different {0} disagree: suspect {0}", fmt::join(axes, " or "));
  return fmt::format("; rank{} {} disagree{} with rank{} {}", differ.size() == 1 ? "" : "s",
                     fmt::join(differ, ", "), differ.size() == 1 ? "s" : "", agree.size() == 1 ? "" : "s",
                     fmt::join(agree, ", "));
}

}  // namespace lockstep
