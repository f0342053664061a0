#include "suites/sweep/sweep_folder.hpp"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "ref/error.hpp"
#include "ref/write_aside.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;
using json = nlohmann::json;

[[noreturn]] void cannot_write(const std::string& path) {
  throw UserError(
      fmt::format("cannot write '{}': the folder must be writable and its disk must have room", path));
}

std::optional<std::string> read_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return {};
  std::ostringstream bytes;
  bytes << in.rdbuf();
  return bytes.str();
}

std::string in_words(const std::string& value) { return value.empty() ? "nothing" : value; }

}  // namespace

SweepFolder::SweepFolder(const std::string& path, const Identity& identity, bool fresh) : path_(path) {
  std::error_code ignored;  // the next line's complaint says it better
  fs::create_directories(path_ + "/plans", ignored);
  const std::string journal = path_ + "/journal";
  journal_ = open(journal.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (journal_ < 0) cannot_write(journal);
  // This kind of lock ends with the process and is not inherited by one that it forks.
  struct flock whole {};
  whole.l_type = F_WRLCK, whole.l_whence = SEEK_SET;
  if (fcntl(journal_, F_SETLK, &whole) < 0 && (errno == EACCES || errno == EAGAIN))
    throw UserError(fmt::format("'{}': another sweep is at work in this folder; name another one", path_));
  const std::string text = json(identity).dump(2);
  digest_ = fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
  if (fresh) remove_all();
  check_identity(identity);
  const std::string file = path_ + "/identity.json";
  if (!write_aside(file, [&](std::ostream& out) { out << text << "\n"; })) cannot_write(file);
}

SweepFolder::~SweepFolder() {
  if (journal_ >= 0) close(journal_);
}

// Only what a sweep makes: the folder may hold other things.
void SweepFolder::remove_all() const {
  std::error_code ignored;
  for (const char* name : {"/identity.json", "/run.h5"}) fs::remove(path_ + name, ignored);
  for (const auto& entry : fs::directory_iterator(path_, ignored))  // of weak scaling there are several
    if (entry.path().filename().string().starts_with("reference.h5")) fs::remove(entry.path(), ignored);
  for (const auto& entry : fs::directory_iterator(path_ + "/plans", ignored))
    if (entry.path().extension() == ".h5") fs::remove(entry.path(), ignored);
  if (ftruncate(journal_, 0) < 0) cannot_write(path_ + "/journal");
}

void SweepFolder::check_identity(const Identity& now) const {
  const std::string path = path_ + "/identity.json";
  const auto text = read_bytes(path);
  if (!text) return;
  Identity then;
  try {
    then = json::parse(*text).get<Identity>();
  } catch (const json::exception&) {
    throw UserError(fmt::format("'{}' is damaged, so the sweep cannot go on; --fresh starts anew", path));
  }
  std::vector<std::string> changes;
  const auto same = [&](const char* name) { return then.count(name) && then.at(name) == now.at(name); };
  for (const auto& [name, value] : now) {
    // Of the build are the shared objects that carry messages and compute, which are then other ones.
    if (name == "build" && !(same("comm") && same("device"))) continue;
    if (const auto old = then.find(name); old == then.end() || old->second != value)
      changes.push_back(fmt::format("{} was {} and is {}", name,
                                    old == then.end() ? "unknown" : in_words(old->second), in_words(value)));
  }
  if (!changes.empty())
    throw UserError(
        fmt::format("'{}' holds another sweep: {}; --fresh starts anew, --out names another folder", path_,
                    fmt::join(changes, ", ")));
}

std::string SweepFolder::plan_file(const std::string& line) const {
  std::string name = line;
  std::replace(name.begin(), name.end(), ' ', '_');
  return fmt::format("{}/plans/{}.h5", path_, name);
}

std::optional<PlanRecord> SweepFolder::recorded(const Plan& plan) const {
  const std::string path = plan_file(plan.line());
  try {
    if (fs::exists(path))
      if (PlanRecord found = read_plan(digest_, path); found.plan == plan.line()) return found;
  } catch (const UserError&) {  // damaged: as good as none
  }
  return {};
}

void SweepFolder::begun(const Plan& plan) { note("begun " + plan.line()); }

void SweepFolder::ended(const PlanRecord& plan) {
  write_plan(plan, digest_, plan_file(plan.plan));
  note(fmt::format("ended {}: {}, {:.3f} s", plan.plan, plan.status, plan.wall_seconds));
}

void SweepFolder::note(const std::string& event) {
  const std::string line = fmt::format("{:%Y-%m-%dT%H:%M:%SZ} {}\n", fmt::gmtime(std::time(nullptr)), event);
  if (write(journal_, line.data(), line.size()) != static_cast<ssize_t>(line.size()))
    cannot_write(path_ + "/journal");
}

}  // namespace lockstep
