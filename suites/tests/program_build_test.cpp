// What a record says of the build: two programs are told apart wherever their code differs.
#include <gtest/gtest.h>

#include <algorithm>

#include "suites/tests/program_runner.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

// The program as it is, and with a byte more behind it, which changes nothing that it does. In a tree whose
// files are all of their revision, that is all that tells them apart.
TEST(ProgramBuild, AnotherProgramDoesNotGoOnInASweepsFolder) {
  const TemporaryFolder folder;
  const std::string program = folder.path() + "/lockstep";
  const std::string suite = folder.write(
      "tiny.toml",
      suite_text("batch = 8\nseq = 16\nsteps = 2\nlr = 0.01\nwarmup = 1\nclip = 0.5\ntimed_steps = 1\n"
                 "timed_steps_most = 1\n[axes]\ndp = 1\n"));
  std::filesystem::copy_file(beside("lockstep"), program);
  const std::string sweep = "'" + program + "' sweep " + suite + " --out " + folder.path() + "/out";
  EXPECT_EQ(shell(sweep).status, 0);
  EXPECT_TRUE(says(shell(sweep).out, "going on: 1 of 1 plans are recorded"));
  EXPECT_TRUE(
      says(shell(sweep + " --launch 'false {ranks}'").err, "launch was nothing and is false {ranks}"));
  std::ofstream(program, std::ios::app) << 'x';
  const Ended other = shell(sweep);
  EXPECT_EQ(other.status, 2) << other.out;
  EXPECT_TRUE(says(other.err, "holds another sweep: build was "));
}

// The page's tests take a folder with a Python in it for a whole environment, and are skipped without one.
TEST(ProgramBuild, HalfAPythonEnvironmentIsNone) {
  const TemporaryFolder folder;
  const Ended ended = shell("mkdir " + folder.path() + "/ci && cp ci/venv.sh " + folder.path() +
                            "/ci && PIP_NO_INDEX=1 PIP_FIND_LINKS= " + folder.path() + "/ci/venv.sh report");
  EXPECT_EQ(ended.status, 1) << ended.out;
  EXPECT_TRUE(says(ended.err, "ci/venv.sh: "));
  EXPECT_FALSE(std::filesystem::exists(folder.path() + "/build/venv"));
}

// A compiler that knows neither Open MPI's option nor where its library is by itself, as MPICH's and Intel's;
// a folder's name has what looks like a flag. HDF5 is a module's, built with that MPI: found by its h5cc.
TEST(ProgramBuild, AnMpichIsFoundByWhatItsCompilerTellsAndAnHdf5OfItsKind) {
  const TemporaryFolder folder;
  const std::string mpi = folder.path() + "/x86_64-linux-gnu", hdf5 = folder.path() + "/hdf5";
  const Ended made =
      shell("mkdir -p " + mpi + " " + hdf5 + "/bin " + hdf5 + "/include " + hdf5 + "/lib64 && cd " + mpi +
            " && echo 'int MPI_Finalize(void) { return 0; }' >m.c && cc -c m.c && ar cr libmpich.a m.o && "
            "echo 'extern \"C\" int MPI_Finalize(void);' >mpi.h && cd " +
            hdf5 +
            " && echo 'int H5open(void) { return 0; }' >h.c && cc -c h.c && ar cr lib64/libhdf5.a h.o && "
            "printf '#include <mpi.h>\\nextern \"C\" int H5open(void);\\n' >include/hdf5.h && "
            "install -m 755 /dev/null bin/h5cc");
  ASSERT_EQ(made.status, 0) << made.err;
  folder.write("mpicc", "#!/bin/sh\ncase $1 in\n-compile_info) echo 'cc -Wl,-z,now -I\"" + mpi +
                            "\"' ;;\n-link_info) echo 'cc -I" + mpi + " -L\"" + mpi +
                            "\" -lmpich -Wl,-rpath,$:$/..' ;;\n*) exit 1 ;;\nesac\n");
  folder.write("pkg-config", "#!/bin/sh\nexit 1\n");
  const Ended ended =
      shell("chmod +x " + folder.path() + "/mpicc " + folder.path() +
            "/pkg-config && env -u HDF5_DIR -u HDF5_ROOT PATH=" + folder.path() + ":" + hdf5 +
            "/bin:$PATH ci/deps.sh " + folder.path() + "/deps.mk && cat " + folder.path() + "/deps.mk");
  const std::string flags = "-DOMPI_SKIP_MPICXX -DMPICH_SKIP_MPICXX -isystem " + mpi + "\n";
  EXPECT_TRUE(says(ended.out, "MPI_CFLAGS := " + flags + "MPI_LIBS := -L" + mpi + " -lmpich\n"))
      << ended.out << ended.err;
  EXPECT_TRUE(says(ended.out, "HDF5_CFLAGS := -idirafter " + hdf5 + "/include " + flags,
                   "HDF5_LIBS := -L" + hdf5 + "/lib64 -Wl,-rpath," + hdf5 + "/lib64 -lhdf5\n"))
      << ended.out << ended.err;
}

// With a compiler that finds nothing, and an apt-get that says that it was called.
TEST(ProgramBuild, NothingIsInstalledWhereItMayNotBe) {
  const TemporaryFolder folder;
  folder.write("apt-get", "#!/bin/sh\ntouch " + folder.path() + "/called\nexit 1\n");
  const std::string deps = "chmod +x " + folder.path() + "/apt-get && PATH=" + folder.path() +
                           ":$PATH CXX=false ci/deps.sh " + folder.path() + "/deps.mk";
  const Ended ended = shell("export LOCKSTEP_INSTALL=0 && " + deps);
  EXPECT_EQ(ended.status, 1);
  EXPECT_TRUE(says(ended.err, "deps: missing and not to be installed (LOCKSTEP_INSTALL=0): ", "HDF5", "fmt"));
  EXPECT_EQ(std::count(ended.err.begin(), ended.err.end(), '\n'), 1) << ended.err;
  EXPECT_FALSE(std::filesystem::exists(folder.path() + "/called"));
}

// What is headers alone takes no root: with a compiler that finds nothing, and a curl that always brings this
// package. It counts by its sum alone.
TEST(ProgramBuild, HeadersAreFetchedWhereNothingCanBeInstalled) {
  const TemporaryFolder folder;
  for (const char* apt : {"apt-get", "apt-cache"}) folder.write(apt, "#!/bin/sh\nexit 1\n");
  folder.write("curl",
               "#!/bin/sh\nwhile [ $1 != -o ]; do shift; done\ncp " + folder.path() + "/package.deb $2\n");
  std::string make = "cd " + folder.path();
  for (const char* file :
       {"include/CLI/CLI.hpp", "include/nlohmann/json.hpp", "include/toml++/toml.h", "include/fmt/format.h",
        "include/xxhash.h", "src/googletest/googletest/src/gtest-all.cc"})
    make += std::string(" && install -D /dev/null usr/") + file;
  const Ended made = shell(make +
                           " && tar -cJf data.tar.xz usr && ar q package.deb data.tar.xz"
                           " && chmod +x apt-get apt-cache curl");
  ASSERT_EQ(made.status, 0) << made.err;
  const auto deps = [&](const std::string& script) {
    return shell("env -u LOCKSTEP_INSTALL PATH=" + folder.path() + ":$PATH CXX=false bash " + script + " " +
                 folder.path() + "/b/deps.mk");
  };
  const Ended other = deps("ci/deps.sh");
  EXPECT_EQ(other.status, 1);
  EXPECT_TRUE(says(other.err, "not installable here: ", "HDF5, CLI11, nlohmann-json, toml++, fmt, xxHash, ",
                   "GoogleTest (for make test)"));
  EXPECT_FALSE(std::filesystem::exists(folder.path() + "/b"));

  const Ended copied = shell("sed -E \"s/[0-9a-f]{64}/$(sha256sum " + folder.path() +
                             "/package.deb | cut -d' ' -f1)/\" ci/deps.sh >" + folder.path() + "/deps.sh");
  ASSERT_EQ(copied.status, 0) << copied.err;
  const Ended this_one = deps(folder.path() + "/deps.sh");
  EXPECT_EQ(this_one.status, 1);
  EXPECT_TRUE(says(this_one.err, "no root: CLI11 nlohmann-json toml++ fmt xxHash GoogleTest\n",
                   "HDF5, MPI (for --comm mpi), "));
  EXPECT_TRUE(std::filesystem::exists(folder.path() + "/b/fetched/googletest/src/gtest-all.cc"));
}

// A repository with this Makefile and one source.
class Revision : public ::testing::Test {
 protected:
  void SetUp() override {
    if (shell("command -v git").status != 0) GTEST_SKIP() << "skipped: no git";
    const Ended made = shell("cp Makefile " + folder_.path() + " && cd " + folder_.path() +
                             " && mkdir ci b reports && echo 'b/' >.gitignore && echo >reports/one.cpp && "
                             "touch ci/deps.sh && touch b/deps.mk && git init -q && git add -A && "
                             "git -c user.name=a -c user.email=a@b commit -qm a");
    ASSERT_EQ(made.status, 0) << made.err;
  }
  std::string revision() const {
    const Ended ended = shell("cd " + folder_.path() +
                              " && env -u MAKEFLAGS -u MAKELEVEL make -s B=b b/revision && cat b/revision");
    EXPECT_EQ(ended.status, 0) << ended.err;
    return ended.out;
  }
  const TemporaryFolder folder_;
};

TEST_F(Revision, AFileThatNoSourceIsChangesNothing) {
  const std::string clean = revision();
  EXPECT_EQ(clean.size(), 13U) << clean;
  folder_.write("notes.md", "");
  folder_.write("b/one.cpp", "");
  EXPECT_EQ(revision(), clean);
}

TEST_F(Revision, ASourceThatGitDoesNotKnowIsDirty) {
  const std::string clean = revision();
  folder_.write("reports/two.cpp", "");
  EXPECT_EQ(revision(), clean.substr(0, 12) + "-dirty\n");
  folder_.write("reports/one.cpp", "int x;");  // and is not said twice
  EXPECT_EQ(revision(), clean.substr(0, 12) + "-dirty\n");
}

}  // namespace
}  // namespace lockstep
