#include "suites/run/training_state.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <xxhash.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "ref/error.hpp"
#include "ref/weights.hpp"
#include "ref/write_aside.hpp"
#include "suites/settings_list.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "lockstep training state";
constexpr int kVersion = 2, kWithoutHashes = 1;

// In a step's folder.
constexpr const char *kWeights = "", *kFirst = "/first_moments", *kSecond = "/second_moments",
                     *kMasters = "/masters";

std::string file_of(const std::string& folder) { return folder + "/state.json"; }

// All that decides a step's numbers, but how many are run. Of the learning rate's schedule its real length,
// for `total` may say that it is as long as the run.
Json settings_of(const Settings& settings) {
  Json j;
  for (const Setting& s : settings_list())
    if (std::string(s.name) != "steps") std::visit([&](auto field) { j[s.name] = settings.*field; }, s.field);
  j["total"] = settings.total > 0 ? settings.total : settings.steps;
  j["dtype"] = dtype_of(settings);
  j["fast"] = settings.fast;
  return j;
}

// The number in "step-12"; -1: another name.
i64 step_of(const std::string& name) {
  i64 step = -1;
  int end = 0;
  if (std::sscanf(name.c_str(), "step-%ld%n", &step, &end) != 1 || end != static_cast<int>(name.size()))
    return -1;
  return step;
}

bool is_there(const std::string& path) {
  std::error_code ignored;  // what cannot be looked at is not there
  return fs::exists(path, ignored);
}

// The step of the last state in a folder, of those before one; -1: there is none.
i64 last_step(const std::string& folder, i64 before = std::numeric_limits<i64>::max()) {
  i64 most = -1;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (const i64 step = step_of(it->path().filename().string());
        step < before && is_there(file_of(it->path().string())))
      most = std::max(most, step);
  return most;
}

std::string step_folder(const std::string& folder, i64 step) {
  return fmt::format("{}/step-{}", folder, step);
}

std::string last_whole(const std::string& path) {
  std::error_code at_file, at_folder;
  if (fs::exists(file_of(path), at_file)) return path;
  const i64 last = last_step(path);
  const fs::directory_iterator in(path, at_folder);
  for (const std::error_code& error : {at_file, at_folder})
    if (error == std::errc::permission_denied)
      throw UserError(path + ": this training's state cannot be read: " + error.message());
  if (last < 0)
    throw UserError(path + ": neither it nor a step-N in it is a training's state, which has a state.json; " +
                    "`lockstep train --state` writes them");
  return step_folder(path, last);
}

// What was written there is on the disk before the file that says that it is whole.
void settle(const std::string& folder) {
  const int file = open(folder.c_str(), O_RDONLY);
  if (file < 0) return;
  syncfs(file);
  close(file);
}

// Of what a file holds of them: no pads, and a tied tensor once.
std::string hash_of(const std::vector<Param>& table, const Weights& values) {
  XXH64_hash_t hash = 0;
  for (std::size_t i = 0; i < table.size(); ++i)
    if (const Param& p = table[i]; p.tied_to < 0)
      hash = XXH3_64bits_withSeed(values[i].data(), p.count() * sizeof(float), hash);
  return fmt::format("{:016x}", hash);
}

// What a state.json says.
struct StateFile {
  i64 steps = 0;
  std::string plan;
  Origin origin;
  Json settings;
  std::map<std::string, std::string> hashes;  // of the tensors, by folder; none: of an earlier program's
};
StateFile read_file(const std::string& path) {
  try {
    std::ifstream in(path);
    const Json j = Json::parse(in);
    if (j.at("format") != kFormat) throw UserError(path + ": this is not the state of a training");
    if (j.at("version") != kVersion && j.at("version") != kWithoutHashes)
      throw UserError(fmt::format("{}: its version is {}, and this program reads {}", path,
                                  j["version"].dump(), kVersion));
    StateFile s{j.at("steps"), j.at("plan"), {j.at("start"), j.at("data_hash")}, j.at("settings"), {}};
    if (j.at("version") == kVersion) s.hashes = j.at("hashes").get<std::map<std::string, std::string>>();
    if (s.steps > 0 && s.settings.is_object()) return s;
  } catch (const nlohmann::json::exception&) {
  }
  throw UserError(path + ": it is damaged; `lockstep train --state` writes such files");
}

}  // namespace

StateKeeper::StateKeeper(const Prepared& p, MpiWorld* mpi)
    : moments_(p, 1, mpi, {"first moment", "second moment"}) {
  if (p.run.settings.weight_bytes < 4)
    masters_.emplace(p, 1, mpi, Assembly::Names{"master weight", "master weight"});
}

void StateKeeper::take(const RankView& v) {
  moments_.state(v, &Home::State::first, &Home::State::second);
  if (masters_) masters_->state(v, &Home::State::master, &Home::State::master);
}

void StateKeeper::gather() {
  moments_.gather();
  if (masters_) masters_->gather();
}

std::string StateKeeper::write(const std::string& folder, i64 steps, const Run& run, const Origin& origin,
                               const std::string& model_path, const Weights& weights, i64 shard_bytes) {
  const auto check = [](const Assembly& of) {
    if (const std::string problem = of.problem(); !problem.empty())
      throw std::runtime_error("the optimizer's state: " + problem);
  };
  check(moments_);
  if (masters_) check(*masters_);
  const std::string path = step_folder(folder, steps);
  std::error_code ignored;  // what follows complains better
  const std::vector<Param>& table = moments_.whole().table;
  Json hashes;
  const auto save = [&](const char* part, const Weights& values) {
    const std::string to = path + part;
    fs::create_directories(to, ignored);
    save_weights(to, table, values, shard_bytes);
    hashes[part] = hash_of(table, values);
  };
  const Whole::Step& moments = moments_.whole().steps[0];
  save(kWeights, weights);
  save(kFirst, moments.gradient);
  save(kSecond, moments.weight);
  if (masters_) save(kMasters, masters_->whole().steps[0].weight);
  save_model_config(path + "/config.json", model_path, run.model);
  const Json j = {{"format", kFormat},
                  {"version", kVersion},
                  {"steps", steps},
                  {"plan", run.plan.line()},
                  {"data_hash", origin.data},
                  {"start", origin.weights},
                  {"settings", settings_of(run.settings)},
                  {"hashes", hashes}};
  settle(path);
  if (!write_aside(file_of(path), [&](std::ostream& out) { out << j.dump(2) << "\n"; }))
    throw UserError(file_of(path) + ": this file cannot be written; its folder must exist and have room.");
  return path;
}

void check_state_folder(const std::string& folder, i64 done) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error || access(folder.c_str(), W_OK) != 0)
    throw UserError(fmt::format("--state {}: name a folder that can be written", folder));
  if (const i64 last = last_step(folder); last > done)
    throw UserError(fmt::format(
        "--state {}: it holds step-{} of a training that was further, from which --resume would go "
        "on; name another folder, or remove that",
        folder, last));
}

std::string hash_of(const Weights& weights) {
  XXH64_hash_t hash = 0;
  for (const auto& tensor : weights)
    hash = XXH3_64bits_withSeed(tensor.data(), tensor.size() * sizeof(float), hash);
  return fmt::format("{:016x}", hash);
}

namespace {

TrainingState state_in(const std::string& folder, const Run& run) {
  const StateFile said = read_file(file_of(folder));
  const Json asked = settings_of(run.settings);
  for (const auto& [name, now] : asked.items()) {
    const Json then = said.settings.value(name, Json());
    if (then != now)
      throw UserError(fmt::format(
          "{}: it was trained with {} {}, and {} is asked for; what goes on must keep its settings", folder,
          name, then.dump(), now.dump()));
  }
  if (model_config_text(load_model_config(folder + "/config.json")) != model_config_text(run.model))
    throw UserError(folder + ": its config.json is of another model than --model names");
  if (said.origin.data != run.data->hash())
    throw UserError(folder + ": it was trained on another text than --data names");
  if (said.steps >= run.settings.steps)
    throw UserError(fmt::format("{}: {} steps are done; --steps counts from the first, so it must be more",
                                folder, said.steps));
  TrainingState s;
  s.steps = said.steps, s.plan = said.plan, s.origin = said.origin;
  const auto table = parameter_table(run.model, run.settings.leaves);
  const auto load = [&](const char* part) {
    Weights values = load_weights(folder + part, table);
    const auto kept = said.hashes.find(part);
    if (!said.hashes.empty() && (kept == said.hashes.end() || kept->second != hash_of(table, values)))
      throw UserError(folder + part +
                      ": its tensors are not those that were kept; a file is damaged, or of another step");
    return values;
  };
  s.weights = as_stored(load(kWeights), run.settings);
  s.first = load(kFirst);
  s.second = load(kSecond);
  if (run.settings.weight_bytes < 4) s.masters = load(kMasters);
  return s;
}

// The last state before one that can be gone on from; -1: none can.
i64 usable_before(i64 step, const std::string& folder, const Run& run) {
  for (i64 k = last_step(folder, step); k >= 0; k = last_step(folder, k)) try {
      state_in(step_folder(folder, k), run);
      return k;
    } catch (const UserError&) {
    }
  return -1;
}

}  // namespace

TrainingState read_state(const std::string& path, const Run& run) {
  const std::string folder = last_whole(path);
  try {
    return state_in(folder, run);
  } catch (const UserError& error) {
    const i64 older = folder == path ? -1 : usable_before(last_step(path), path, run);
    if (older < 0) throw;
    throw UserError(
        fmt::format("{}; an older one is whole: --resume {}", error.what(), step_folder(path, older)));
  }
}

void take_up(const RankView& v, const TrainingState& s) {
  const LocalParams& params = v.executor.params();
  std::vector<float> part;
  i64 at = 0;
  for (const Piece& piece : v.executor.pieces()) {
    const LocalParam& l = params.all[piece.local];
    const int index = params.table[l.param].tied_to >= 0 ? params.table[l.param].tied_to : l.param;
    const Param& p = params.table[index];
    const Home::State to = v.executor.home().state(at);
    const auto give = [&](View where, const Weights& whole) {
      part.assign(static_cast<std::size_t>(piece.n), 0.0f);  // pads have no gradient
      for (i64 i = 0; i < piece.n; ++i)
        if (const i64 place = l.place(piece.first + i, p.cols); place < p.count())
          part[i] = whole[index][place];
      put(v.device, where, part.data(), piece.n);
    };
    give(to.first, s.first), give(to.second, s.second);
    if (!s.masters.empty()) give(to.master, s.masters);
    at += piece.n;
  }
}

}  // namespace lockstep
