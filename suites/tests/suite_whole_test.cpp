// Two runs in one form: where they first differ, what of one run proves nothing, what its hash is of.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "suites/run/whole.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

// Two parameters, [2, 3] of which the second row is a pad, and [1, 2]; two steps in which the loss falls, all
// weights change and the norm of the first is clipped.
class WholeRun : public testing::Test {
 protected:
  WholeRun() {
    Param matrix, norm;
    matrix.name = "matrix", matrix.rows = 1, matrix.stored_rows = 2, matrix.cols = 3;
    norm.name = "norm", norm.rows = norm.stored_rows = 1, norm.cols = 2;
    run_.table = {matrix, norm};
    run_.steps = {{3.0, 2.0, {{1, -2, 3, 0, 0, 0}, {4, 5}}, {{.1f, .2f, .3f, 0, 0, 0}, {1, 1}}},
                  {2.5, 0.5, {{1, -1, 2, 0, 0, 0}, {0, 6}}, {{.2f, .1f, .4f, 0, 0, 0}, {1, 2}}}};
    settings_.clip = 1;
  }
  Whole changed(const std::function<void(Whole&)>& change) const {
    Whole other = run_;
    change(other);
    return other;
  }
  std::string differs(const std::function<void(Whole&)>& change) const {
    const auto d = first_difference(run_, changed(change));
    return d ? d->text() : "";
  }
  std::string proves_nothing(const std::function<void(Whole&)>& change) const {
    return vacuous(changed(change), settings_);
  }
  Whole run_;
  Settings settings_;
};

TEST_F(WholeRun, TheFirstPlaceOfADifferenceIsNamed) {
  EXPECT_EQ(differs([](Whole&) {}), "");
  EXPECT_EQ(differs([](Whole& w) { w.steps[0].loss = std::nextafter(3.0, 4.0); }),
            "step 0: loss: 3 instead of 3");
  EXPECT_EQ(differs([](Whole& w) { w.steps[1].gradient[0][2] = 7, w.steps[1].weight[0][0] = 7; }),
            "step 1: gradient of matrix at [0, 2]: 7 instead of 2");
  EXPECT_EQ(differs([](Whole& w) { w.steps[1].grad_norm = 0.75, w.steps[1].weight[0][0] = 7; }),
            "step 1: gradient norm: 0.75 instead of 0.5");
  EXPECT_EQ(differs([](Whole& w) { w.steps[1].weight[1][1] = 3; }),
            "step 1: weight of norm at [0, 1]: 3 instead of 2");
  // Backward the last parameter comes first; a pad counts; -0 is +0.
  EXPECT_EQ(differs([](Whole& w) { w.steps[0].gradient[0][0] = 9, w.steps[0].gradient[1][0] = 8; }),
            "step 0: gradient of norm at [0, 0]: 8 instead of 4");
  EXPECT_EQ(differs([](Whole& w) { w.steps[0].weight[0][5] = 9; }),
            "step 0: weight of matrix at [1, 2]: 9 instead of 0");
  EXPECT_EQ(differs([](Whole& w) { w.steps[1].gradient[1][0] = -0.0f; }), "");
  EXPECT_EQ(differs([](Whole& w) { w.steps[1].gradient[1][0] = std::nanf(""); }),
            "step 1: gradient of norm at [0, 0]: nan instead of 0");
}

// What is not there is not equal.
TEST_F(WholeRun, NoComparisonIsOfNothing) {
  EXPECT_EQ(differs([](Whole& w) { w.steps.pop_back(); }), "");
  EXPECT_THROW(differs([](Whole& w) { w.steps.clear(); }), std::logic_error);
  EXPECT_THROW(differs([](Whole& w) { w.steps.push_back(w.steps[1]); }), std::logic_error);
  EXPECT_THROW(differs([](Whole& w) { w.steps[0].gradient[1].pop_back(); }), std::logic_error);
  EXPECT_THROW(differs([](Whole& w) { w.steps[1].weight[0].clear(); }), std::logic_error);
}

TEST_F(WholeRun, WhatProvesNothingIsSaid) {
  EXPECT_EQ(proves_nothing([](Whole&) {}), "");
  EXPECT_EQ(proves_nothing([](Whole& w) { w.steps[1].loss = NAN; }),
            "step 1 has the loss nan and the gradient norm 0.5");
  EXPECT_EQ(proves_nothing([](Whole& w) { w.steps[0].grad_norm = INFINITY; }),
            "step 0 has the loss 3 and the gradient norm inf");
  EXPECT_EQ(proves_nothing([](Whole& w) {
              w.steps[1].gradient[1] = {0, 0};
            }),
            "step 1: the gradient of norm is all zero");
  EXPECT_EQ(proves_nothing([](Whole& w) { w.steps[1].weight[1] = w.steps[0].weight[1]; }),
            "the weights of norm do not change");
  for (const double loss : {3.0, 3.5})
    EXPECT_TRUE(says(proves_nothing([&](Whole& w) { w.steps[1].loss = loss; }),
                     "the loss does not fall: 3 to " + std::string(loss == 3 ? "3;" : "3.5;")));
  EXPECT_EQ(proves_nothing([](Whole& w) { w.steps[0].grad_norm = 1; }), "clipping at 1 never acted");
  // A tied head's are empty; of one step nothing need have changed.
  EXPECT_EQ(proves_nothing([](Whole& w) {
              for (Whole::Step& s : w.steps) s.gradient[1].clear(), s.weight[1].clear();
            }),
            "");
  EXPECT_EQ(proves_nothing([](Whole& w) { w.steps.pop_back(); }), "");
}

// Of every number that is the model's, in its place; not of pads, nor of zero's sign.
TEST_F(WholeRun, TheHashIsOfAllOfIt) {
  const std::string hash = run_.hash();
  EXPECT_EQ(hash.size(), 32u);
  const auto same_as = [&](const std::function<void(Whole&)>& change) {
    return changed(change).hash() == hash;
  };
  EXPECT_TRUE(same_as([](Whole&) {}));
  EXPECT_TRUE(same_as([](Whole& w) { w.steps[1].gradient[1][0] = -0.0f; }));
  EXPECT_TRUE(same_as([](Whole& w) { w.steps[0].weight[0][5] = 9, w.steps[0].gradient[0][3] = 9; }));
  EXPECT_FALSE(same_as([](Whole& w) { w.steps[0].loss = std::nextafter(3.0, 4.0); }));
  EXPECT_FALSE(same_as([](Whole& w) { w.steps[1].grad_norm = 0.75; }));
  for (std::size_t step : {0, 1})
    for (std::size_t param : {0, 1})
      for (std::size_t at : {0, 1}) {
        EXPECT_FALSE(same_as([&](Whole& w) { w.steps[step].gradient[param][at] += 1; }))
            << step << param << at;
        EXPECT_FALSE(same_as([&](Whole& w) { w.steps[step].weight[param][at] += 1; })) << step << param << at;
      }
  EXPECT_FALSE(same_as([](Whole& w) { std::swap(w.steps[0], w.steps[1]); }));
  EXPECT_FALSE(same_as([](Whole& w) { w.steps.pop_back(); }));
}

}  // namespace
}  // namespace lockstep
