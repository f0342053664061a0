// The folder of a sweep, so kept that a sweep can be ended at any moment and go on later:
//   identity.json     what its plans were run with; a sweep of other things does not go on here
//   plans/<plan>.h5   one file per finished plan, written aside and renamed: there is no half of one
//   journal           one line per event, for people
//   reference.h5      the single-device run (suites/run/reference_file.hpp)
//   run.h5            all plans together (reports/schema.md)
#pragma once
#include <map>
#include <optional>
#include <string>

#include "parallel/plan.hpp"
#include "reports/record.hpp"

namespace lockstep {

// What a plan's record depends on, by name: the suite, each setting, the model's hash, the build, ...
using Identity = std::map<std::string, std::string>;

class SweepFolder {
 public:
  // Makes it if need be. fresh: removes what an earlier sweep left. UserError: it cannot be written, another
  // sweep is at work in it, or one was that had another identity.
  SweepFolder(const std::string& path, const Identity&, bool fresh);
  ~SweepFolder();
  SweepFolder(const SweepFolder&) = delete;
  SweepFolder& operator=(const SweepFolder&) = delete;

  // Nothing also if its file is damaged: then the plan is to be run again.
  std::optional<PlanRecord> recorded(const Plan&) const;
  void begun(const Plan&);
  void ended(const PlanRecord&);  // keeps it; UserError: no room
  void note(const std::string& event);

  std::string run_file() const { return path_ + "/run.h5"; }
  std::string reference_file() const { return path_ + "/reference.h5"; }
  const std::string& digest() const { return digest_; }  // of the identity

 private:
  std::string plan_file(const std::string& line) const;
  void remove_all() const;
  void check_identity(const Identity&) const;
  std::string path_, digest_;
  int journal_ = -1;
};

}  // namespace lockstep
