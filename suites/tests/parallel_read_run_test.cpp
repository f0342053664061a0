// A run file read back: what write_run got, and nothing of a file that is no run or a damaged one.
#include <gtest/gtest.h>

#include "reports/h5.hpp"
#include "reports/record.hpp"
#include "suites/tests/parallel_report_sample.hpp"
#include "suites/tests/temporary_folder.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

// Every field of a run; of a list its NaNs at the end are what short rows are filled with.
TEST(ReadRun, GivesBackWhatWasWritten) {
  const TemporaryFolder folder;
  RunRecord run = sample_run(30);
  run.launch = "srun -n {ranks}", run.comm = "mpi", run.predicted_with = "a cluster", run.seed = -3;
  run.plans[3].loss = {5}, run.plans[3].step_seconds = {};
  run.plans[4].status = "crashed", run.plans[4].ended = "größe", run.plans[4].hosts = "2 x node1";
  run.plans[5].fast_worst = 0.5, run.plans[5].threads = 3, run.plans[5].measured_timeline = "{}";
  for (PlanRecord& p : run.plans)  // a file has every key that any plan has
    for (const char* axis : {"dp", "tp", "pp"}) p.traffic[axis];
  write_run(run, folder.path() + "/run.h5");
  const RunRecord back = read_run(folder.path() + "/run.h5");
  const auto texts = [](const RunRecord& r) {
    return std::vector<std::string>{
        r.suite,          r.model,          r.model_hash,    r.data, r.data_hash, r.dtype,
        r.revision,       r.compiler,       r.flags,         r.host, r.cpu,       r.isa,
        r.device,         r.started,        r.launch,        r.comm, r.verdict,   r.hash,
        r.simulated_with, r.predicted_with, r.reference_hash};
  };
  EXPECT_EQ(texts(back), texts(run));
  const auto numbers = [](const RunRecord& r) {
    return std::vector<i64>{r.seed, r.batch, r.seq, r.steps, r.parameters, r.cores};
  };
  EXPECT_EQ(numbers(back), numbers(run));
  EXPECT_EQ(back.refused, run.refused);
  ASSERT_EQ(back.plans.size(), run.plans.size());
  for (std::size_t i = 0; i < run.plans.size(); ++i) {
    // The bytes between processes hold every field (RecordTest), so they are equal where all fields are.
    EXPECT_EQ(bytes_of(back.plans[i]), bytes_of(run.plans[i])) << run.plans[i].plan;
  }
}

TEST(ReadRun, WantsARunOfThisVersion) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/x.h5";
  const auto refused = [&] { return refusal([&] { read_run(path); }); };
  write_plan(PlanRecord{}, "identity", path);
  EXPECT_TRUE(says(refused(), path, "is not a run file"));
  const auto write = [&](i64 version) {
    h5::Writer file(path);
    file.attribute("format", std::string("lockstep run"));
    file.attribute("version", version);
    file.close();
  };
  write(2);
  EXPECT_TRUE(says(refused(), "a run file of version 2; this program reads version 1"));
  write(1);
  EXPECT_TRUE(says(refused(), path, "damaged"));
  EXPECT_TRUE(says(refusal([&] { read_run(folder.path() + "/no.h5"); }), "no.h5", "does not exist"));
}

// What an earlier program did not keep has its default; columns of another length are damage.
TEST(ReadRun, ReadsAFileOfAnEarlierProgramAndNoDamagedOne) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run.h5";
  const auto write = [&](const std::vector<std::string>& status) {
    h5::Writer file(path);
    file.attribute("format", std::string("lockstep run"));
    file.attribute("version", i64{1});
    file.attribute("batch", i64{8});
    file.group("/plans");
    file.write("/plans/plan", std::vector<std::string>{"dp=1", "dp=2"});
    file.write("/plans/status", status);
    file.group("/refused");
    file.write("/refused/rule", std::vector<std::string>{});
    file.write("/refused/plans", std::vector<i64>{});
    file.close();
  };
  write({"ok", "failed"});
  const RunRecord run = read_run(path);
  EXPECT_EQ(run.batch, 8);
  EXPECT_EQ(run.comm, "local");
  ASSERT_EQ(run.plans.size(), 2u);
  EXPECT_EQ(run.plans[1].plan, "dp=2");
  EXPECT_EQ(run.plans[1].status, "failed");
  EXPECT_FALSE(run.plans[1].timed);
  write({"ok"});
  EXPECT_TRUE(says(refusal([&] { read_run(path); }), "damaged", "'/plans/status' has not 2 rows"));
}

// The library would follow a broken address in its heap of texts, to nowhere.
TEST(ReadRun, OneBitAnywhereIsSeen) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run.h5", broken = folder.path() + "/broken.h5";
  write_run(sample_run(3), path);
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  std::string bytes = text.str();
  for (std::size_t at = 0; at < bytes.size(); at += 97) {
    bytes[at] ^= 1 << at % 8;
    std::ofstream(broken) << bytes;
    EXPECT_TRUE(says(refusal([&] { read_run(broken); }), "broken.h5")) << at;
    bytes[at] ^= 1 << at % 8;
  }
  // Another program's change takes the hash off, and is its own business.
  std::ofstream(broken) << bytes.substr(0, bytes.size() - 24);
  EXPECT_EQ(read_run(broken).plans.size(), 3u);
}

}  // namespace
}  // namespace lockstep
