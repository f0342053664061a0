// Which layers keep their activations: written out, for a formula and a stash that are wrong alike agree.
#include <gtest/gtest.h>

#include "parallel/device/noting.hpp"
#include "parallel/roles.hpp"

namespace lockstep {
namespace {

TEST(Checkpoint, EveryThirdOfEightLayersKeepsItsInputAlone) {
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  const Plan plan = Plan::parse("ckpt=full every=3");
  const Settings settings;
  const Mesh mesh;
  NotingDevice noting;
  const auto stash = chosen<Stash>(plan).make({model, settings, plan, mesh, 0, noting.device});
  const Shape shape = shape_of(plan, model, settings, 0);
  std::vector<int> keep, priced;
  for (int layer = 0; layer < 8; ++layer) {
    if (stash->keeps(layer, Part::q)) keep.push_back(layer);
    if (!chosen<Stash>(plan).price.drops(shape, layer).qkv) priced.push_back(layer);
  }
  const std::vector<int> expected{1, 2, 4, 5, 7};
  EXPECT_EQ(keep, expected);
  EXPECT_EQ(priced, expected);
}

}  // namespace
}  // namespace lockstep
