// lockstep published: the planner held to what others measured and published.
#include "suites/planner/published/published.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>

#include "ref/error.hpp"
#include "suites/commands/command.hpp"
#include "suites/progress.hpp"

namespace lockstep::published_cli {
namespace {

struct Options {
  std::vector<std::string> files;
  std::string only;
  bool rows = false;
};

// Of a folder.
std::vector<std::string> groups_in(const std::string& folder) {
  std::vector<std::string> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error))
    if (entry.path().extension() == ".toml") files.push_back(entry.path().string());
  if (error)
    throw UserError(
        fmt::format("published: the folder {} cannot be read: {}; it lies in the repository, and "
                    "a group's file may be named instead",
                    folder, error.message()));
  if (files.empty())
    throw UserError(fmt::format("published: no group of published rows (*.toml) in {}", folder));
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<std::string> asked_groups(const std::vector<std::string>& named) {
  if (named.empty()) return groups_in("suites/published");
  std::vector<std::string> files;
  for (const std::string& name : named)
    if (std::filesystem::is_directory(name))
      for (const std::string& file : groups_in(name)) files.push_back(file);
    else
      files.push_back(name);
  return files;
}

int published(const Options& o) {
  std::vector<PublishedGroup> groups;
  for (const std::string& file : asked_groups(o.files)) groups.push_back(load_published_group(file));
  std::size_t rows = 0;
  for (const PublishedGroup& g : groups)
    rows += static_cast<std::size_t>(std::count_if(g.rows.begin(), g.rows.end(), [&](const PublishedRow& r) {
      return o.only.empty() || r.text("source") == o.only;
    }));
  if (rows == 0)
    throw UserError(
        fmt::format("published: no row of a source `{}`; `lockstep published` lists them", o.only));
  Progress progress(static_cast<int>(rows));
  std::vector<ScoredGroup> scored;
  for (const PublishedGroup& g : groups) {
    ScoredGroup one = score(g, o.only, [&](const PublishedRow& row) {
      progress.begin(row.place());
      progress.end(row.place());
    });
    if (!one.rows.empty()) scored.push_back(std::move(one));
  }
  progress.finish();
  bool met = true;
  for (const ScoredGroup& one : scored) {
    if (o.rows) fmt::print("{}\n", rows_text(one));
    for (const SourceScore& s : one.sources) met &= s.missed.empty();
  }
  fmt::print("{}", scores_text(scored));
  return met ? 0 : 1;
}

Command::Action declare(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("files", o->files, "groups of sources, or folders of them; by default suites/published");
  app.add_option("--only", o->only, "rows of this source alone");
  app.add_flag("--rows", o->rows, "each row, predicted and published");
  return [o] { return published(*o); };
}

const Command command("published",
                      "hold the planner to published measurements; exit status 1: a bar is missed", declare);

}  // namespace
}  // namespace lockstep::published_cli
