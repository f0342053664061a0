// Runs the built program as a user would, and looks at what it says.
#pragma once
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "suites/tests/temporary_folder.hpp"

namespace lockstep {

struct Ended {
  int status;
  std::string out, err;
};

// A file beside the test program.
inline std::string beside(const char* name) {
  return (std::filesystem::read_symlink("/proc/self/exe").parent_path() / name).string();
}

inline Ended shell(const std::string& command) {
  const TemporaryFolder folder;
  // The line's end, so that what is asked may end in a comment.
  const std::string whole =
      "(" + command + "\n) </dev/null >" + folder.path() + "/out 2>" + folder.path() + "/err";
  const int status = std::system(whole.c_str());
  const auto read = [&](const char* name) {
    std::ostringstream text;
    text << std::ifstream(folder.path() + "/" + name).rdbuf();
    return text.str();
  };
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read("out"), read("err")};
}

// `before`: what the shell does first.
inline Ended lockstep_program(const std::string& arguments, const std::string& before = "") {
  return shell(before + "'" + beside("lockstep") + "' " + arguments);
}

// With PyTorch and Transformers, where somebody made it.
inline const std::string fixtures_python = "build/venv-fixtures/bin/python";

inline const std::string tiny_model = "--model suites/models/gate-tiny.json ";
// A suite's text that is understood in any folder; `more` goes on in [run].
inline std::string suite_text(const std::string& more, const std::string& model = "gate-tiny") {
  const std::string here = std::filesystem::current_path().string();
  return "[run]\nmodel = \"" + here + "/suites/models/" + model + ".json\"\ndata = \"" + here +
         "/datasets/excerpt-v509.tok\"\n" + more;
}

inline const std::string tiny_run =
    tiny_model + "--data datasets/excerpt-v509.tok --batch 8 --seq 16 --clip 0.5 ";

}  // namespace lockstep
