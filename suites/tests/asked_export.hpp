// A question to an exporter, and whether a sentence is among those it answers with.
#pragma once
#include <algorithm>

#include "suites/planner/export/export.hpp"

namespace lockstep {

struct AskedExport {
  ModelConfig model;
  Cluster cluster = load_cluster("suites/clusters/h100x64.toml");
  Settings settings;
  explicit AskedExport(const std::string& name, int devices = 8)
      : model(load_model_config("suites/models/" + name + ".json")) {
    cluster.devices = devices;
    settings = settings_on(cluster, {});
    settings.batch = 16, settings.seq = 64;
  }
  Question question() const { return {model, settings, cluster}; }
  Exported to(const std::string& system, const std::string& plan) const {
    return exported(exporter(system), question(), Plan::parse(plan));
  }
};

inline bool named(const std::vector<std::string>& sentences, const std::string& what) {
  return std::any_of(sentences.begin(), sentences.end(),
                     [&](const std::string& s) { return s.find(what) != std::string::npos; });
}

}  // namespace lockstep
