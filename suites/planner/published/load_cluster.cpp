// A cluster may be that of a group of published rows, so what reads either stands here, above both.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <optional>

#include "ref/error.hpp"
#include "suites/planner/cluster_table.hpp"
#include "suites/planner/published/group.hpp"
#include "suites/toml_file.hpp"

namespace lockstep {

std::string cluster_file(const std::string& path) {
  const std::size_t colon = path.rfind(".toml:");
  return colon == std::string::npos || std::filesystem::exists(path) ? path : path.substr(0, colon + 5);
}

namespace {

// "suites/published/nemo.toml:h100_80gb": a cluster of a group of published rows, with what was fitted to
// them.
std::optional<Cluster> cluster_of_group(const std::string& path) {
  const std::string file = cluster_file(path);
  if (file == path) return {};
  const std::string type = path.substr(file.size() + 1);
  const PublishedGroup group = load_published_group(file);
  std::vector<std::string> names;
  for (const auto& [name, cluster] : group.clusters) names.push_back(name);
  const auto found = group.clusters.find(type);
  if (found == group.clusters.end())
    throw UserError(fmt::format("{}: no cluster `{}`; there are {}", file, type, fmt::join(names, ", ")));
  return found->second;
}

}  // namespace

Cluster load_cluster(const std::string& path) {
  if (auto cluster = cluster_of_group(path)) return *cluster;
  const toml::table file = read_toml(path, "suites/clusters/ has some");
  if (const toml::table* group = file["cluster"].as_table(); group && !group->empty())
    throw UserError(fmt::format("{0}: this is a group of published rows; write {0}:{1} for its cluster", path,
                                group->begin()->first.str()));
  return read_cluster(file, path);
}

}  // namespace lockstep
