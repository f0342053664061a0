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

// The program lies beside the test program. `before`: what the shell does first.
inline Ended lockstep_program(const std::string& arguments, const std::string& before = "") {
  static const std::string program =
      (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "lockstep").string();
  const TemporaryFolder folder;
  const std::string command = before + "'" + program + "' " + arguments + " </dev/null >" + folder.path() +
                              "/out 2>" + folder.path() + "/err";
  const int status = std::system(command.c_str());
  auto read = [&](const char* name) {
    std::ostringstream text;
    text << std::ifstream(folder.path() + "/" + name).rdbuf();
    return text.str();
  };
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read("out"), read("err")};
}

inline const std::string tiny_model = "--model suites/models/gate-tiny.json ";
inline const std::string tiny_run =
    tiny_model + "--data datasets/excerpt-v509.tok --batch 8 --seq 16 --clip 0.5 ";

}  // namespace lockstep
