// The models that come with the suites have the sizes of those they are named after.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "ref/params.hpp"

namespace lockstep {
namespace {

// Parameters, as huggingface.co states them on each model's page (the `total` of its safetensors metadata)
// for HuggingFaceTB/SmolLM2-*, TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T, meta-llama/Llama-2-*-hf,
// meta-llama/Meta-Llama-3-* and meta-llama/Llama-3.1-405B.
const std::map<std::string, i64> published = {
    {"smollm2-135m", 134'515'008},
    {"smollm2-360m", 361'821'120},
    {"smollm2-1.7b", 1'711'376'384},
    {"tinyllama-1.1b", 1'100'048'384},
    {"llama-2-7b", 6'738'415'616},
    {"llama-2-13b", 13'015'864'320},
    {"llama-2-70b", 68'976'648'192},
    {"llama-3-8b", 8'030'261'248},
    {"llama-3-70b", 70'553'706'496},
    {"llama-3.1-405b", 405'853'388'800},
    {"llama-3-8b-8-layers", 8'030'261'248 - i64{24} * 218'112'000},  // without 24 of its layers
};

i64 parameters(const ModelConfig& model) {
  i64 count = 0;
  for (const Param& p : parameter_table(model, 8))
    if (p.tied_to < 0) count += p.count();
  return count;
}

TEST(Models, HaveThePublishedNumberOfParameters) {
  for (const auto& [name, count] : published)
    EXPECT_EQ(parameters(load_model_config("suites/models/" + name + ".json")), count) << name;
}

// The suites' own models are small; a large one is somebody's, and has a published count to be held to.
TEST(Models, OfSuitesCanAllBeRead) {
  for (const auto& entry : std::filesystem::directory_iterator("suites/models")) {
    const std::string name = entry.path().stem();
    const i64 count = parameters(load_model_config(entry.path()));
    EXPECT_GT(count, 0) << name;
    if (published.count(name)) continue;
    EXPECT_LT(count, 120'000'000) << name << ": state its published count above";
  }
}

}  // namespace
}  // namespace lockstep
