#include "suites/planner/measure/measure_process.hpp"

#include <fmt/format.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "parallel/device/disk.hpp"
#include "suites/planner/measure/process_memory.hpp"
#include "suites/planner/measure/small_model.hpp"
#include "suites/run/resident.hpp"

namespace lockstep {
namespace {

// Some tokens to train on, as datasets/format.md has them.
class Tokens {
 public:
  explicit Tokens(const std::string& scratch) {
    const std::filesystem::path folder = scratch.empty() ? temporary_folder() : scratch;
    path_ = (folder / fmt::format("lockstep-tokens-{}", ::getpid())).string();
    std::vector<std::uint16_t> tokens(4096);
    for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::uint16_t>(i * i % 509);
    tokens.back() = 0;
    const std::size_t bytes = tokens.size() * sizeof tokens[0];
    std::array<char, 64> head{};
    const auto put = [&](std::size_t at, auto value) { std::memcpy(&head[at], &value, sizeof value); };
    std::memcpy(head.data(), "LOCKTOK1", 8);
    put(8, std::uint32_t{1}), put(12, std::uint32_t{2}), put(16, std::uint64_t{tokens.size()});
    put(24, std::uint32_t{509}), put(28, std::uint32_t{0});
    put(32, std::uint64_t{XXH3_64bits(tokens.data(), bytes)});
    std::ofstream file(path_, std::ios::binary);
    file.write(head.data(), head.size());
    file.write(reinterpret_cast<const char*>(tokens.data()), static_cast<std::streamsize>(bytes));
  }
  ~Tokens() { std::filesystem::remove(path_); }
  Tokens(const Tokens&) = delete;
  Tokens& operator=(const Tokens&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

void measure_process(const MeasureHow& how, Cluster& c, Measurements& notes) {
  const Tokens tokens(how.scratch);
  const TokenFile data(tokens.path());
  Settings settings;
  settings.fast = true, settings.batch = 4, settings.seq = 64, settings.steps = 2;
  std::array<double, 2> beside{};  // of one rank, of two
  for (const int ranks : {1, 2}) {
    const Run run{small_model(), settings, Plan::parse(fmt::format("dp={}", ranks)), &data};
    const auto resident =
        peak_resident_bytes(run, {.isa = how.isa, .threads = how.threads, .scratch = how.scratch}, true);
    if (!resident) return;
    Sample sample;
    sample.seconds = static_cast<double>(*resident), sample.calls = 1;
    const ProcessMemory said = process_memory(prepare(run), {});
    notes.push_back({"process", "resident", run.plan.line(), ranks, said.all(), sample});
    beside[static_cast<std::size_t>(ranks - 1)] = sample.seconds - said.all();
  }
  c.workspace = std::max(0.0, beside[1] - beside[0]);
  c.context = std::max(0.0, beside[0] - c.workspace);
}

}  // namespace lockstep
