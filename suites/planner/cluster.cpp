#include "suites/planner/cluster.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/work.hpp"
#include "parallel/comm/comm.hpp"
#include "parallel/word_limit.hpp"
#include "suites/planner/cluster_table.hpp"
#include "suites/planner/units.hpp"
#include "suites/section.hpp"

namespace lockstep {
namespace {

void read_link(Section section, const toml::table* table, Link& link, bool required) {
  Units units(section, table);
  units.read("gb_per_s", kGiga, link.bandwidth, required, kGigabytesPerSecond);
  units.read("latency_us", kMicro, link.latency, false, kMicroseconds);
  units.read("by_bytes", link.by_bytes, kPart);
  units.read("by_nodes", link.by_nodes, kPart);
  units.read("halves_by_nodes", link.halves_by_nodes, kPart);
  section.finish();
}

void read_device(Section section, const toml::table* table, Cluster& c) {
  Units units(section, table);
  units.read("memory_gib", kGiB, c.memory, true, kGibibytes);
  units.read("tflops", kTera, c.flops, true, kTeraflops);
  units.read("memory_gb_per_s", kGiga, c.memory_bandwidth, true, kGigabytesPerSecond);
  units.read("launch_us", kMicro, c.launch, false, kMicroseconds);
  units.read("dispatch_us", kMicro, c.dispatch, false, kMicroseconds);
  units.read("step_ms", 1e-3, c.step, false, kMilliseconds);
  units.read("score_bytes", 1, c.score, false, kBytes);
  units.read("score_dx_bytes", 1, c.score_dx, false, kBytes);
  units.read("score_kernels", 1, c.score_kernels, false, kKernels);
  units.read("score_apart", 1, c.score_apart, false, kKernels);
  section.read("score_group", c.score_group);
  if (c.score_group < 1) section.fail(*table->get("score_group"), "score_group must be 1 or more");
  for (const auto& [key, value] :
       {std::pair{"weight_bytes", &c.weight_bytes}, std::pair{"gradient_bytes", &c.gradient_bytes},
        std::pair{"activation_bytes", &c.activation_bytes}}) {
    section.read(key, *value, 2, 4);
    if (*value == 3) section.fail(*table->get(key), fmt::format("{} is 3; it must be 2 or 4", key));
  }
  section.finish();
}

void read_flag(Section& section, const std::string& key, bool& value) {
  const toml::node* node = section.find(key);
  if (!node) return;
  if (!node->is_boolean())
    section.fail(*node, fmt::format("{} must be true or false, not {}", key, Section::type_of(*node)));
  value = *node->value<bool>();
}

void read_trainer(Section section, const toml::table* table, Cluster& c) {
  Units units(section, table);
  units.read("hand_over_us", kMicro, c.hand_over, false, kMicroseconds);
  read_flag(section, "recomputes_whole_layers", c.recomputes_whole_layers);
  read_flag(section, "hand_over_blocks", c.hand_over_blocks);
  read_flag(section, "hand_over_scattered", c.hand_over_scattered);
  OtherTrainer& t = c.trainer;
  read_flag(section, "balanced_stages", t.balanced_stages);
  units.read("issue_us", kMicro, t.issue, false, kMicroseconds);
  units.read("microbatch_us", kMicro, t.microbatch, false, kMicroseconds);
  units.read("staged_issue_us", kMicro, t.staged_issue, false, kMicroseconds);
  units.read("exposed_tp", 1, t.exposed_tp, false, kPart);
  units.read("exposed_dp", 1, t.exposed_dp, false, kPart);
  read_flag(section, "flat_rings", t.flat_rings);
  read_flag(section, "reduces_whole", t.reduces_whole);
  units.read("weight_bytes", 1, t.weight_bytes, false, kBytes);
  units.read("logit_bytes", 1, t.logit_bytes, false, kBytes);
  units.read("ffn_bytes", 1, t.ffn_bytes, false, kBytes);
  units.read("gathered_bytes", 1, t.gathered_bytes, false, kBytes);
  section.finish();
}

void read_host(Section section, const toml::table* table, Cluster& c) {
  Units units(section, table);
  units.read("link_gb_per_s", kGiga, c.host.bandwidth, true, kGigabytesPerSecond);
  units.read("latency_us", kMicro, c.host.latency, false, kMicroseconds);
  units.read("by_bytes", c.host.by_bytes, kPart);
  units.read("memory_gib", kGiB, c.host_memory, true, kGibibytes);
  units.read("memory_gb_per_s", kGiga, c.host_bandwidth, true, kGigabytesPerSecond);
  read_flag(section, "copies_block", c.copies_block);
  section.finish();
}

void read_disk(Section section, const toml::table* table, Cluster& c) {
  Units units(section, table);
  units.read("size_gb", kGiga, c.disk_bytes, true, kGigabytes);
  units.read("gb_per_s", kGiga, c.disk.bandwidth, true, kGigabytesPerSecond);
  units.read("latency_us", kMicro, c.disk.latency, false, kMicroseconds);
  units.read("by_bytes", c.disk.by_bytes, kPart);
  section.finish();
}

void read_process(Section section, const toml::table* table, Cluster& c) {
  Units units(section, table);
  units.read("context_gib", kGiB, c.context, false, kGibibytes);
  units.read("communicator_gib", kGiB, c.communicator, false, kGibibytes);
  units.read("workspace_gib", kGiB, c.workspace, false, kGibibytes);
  units.read("fragmentation", 1, c.fragmentation, false, kPart);
  section.finish();
}

std::vector<double> read_list(Section& section, const std::string& key, const Limit& limit) {
  const toml::node* node = section.find(key);
  if (!node) return section.lacks(key), std::vector<double>{};
  std::vector<double> list;
  const toml::array* numbers = node->as_array();
  if (numbers)
    for (const toml::node& n : *numbers) list.push_back(n.is_number() ? *n.value<double>() : 0);
  if (list.empty() || !std::all_of(list.begin(), list.end(), [](double x) { return x > 0; }))
    section.fail(*node, fmt::format("{} must be a list of numbers greater than 0", key));
  if (const double largest = *std::max_element(list.begin(), list.end()); largest > limit.most)
    section.fail(*node, fmt::format("{} has {:g}, which is beyond {:g}: it must be {}", key, largest,
                                    limit.most, limit.in));
  return list;
}

void read_grids(const std::string& file, Section section, Cluster& c) {
  for (const char* name : {"matmul", "matmul_dx", "matmul_dw", "attention", "attention_dx"}) {
    const toml::table* table = section.table(name);
    if (!table) continue;
    Section of(file, fmt::format("[grid.{}]", name), table);
    Grid& grid = c.grids[name];
    std::size_t points = 1;
    for (std::size_t a = 0; a < 3; ++a) {
      grid.sizes[a] = read_list(of, kGridAxes[a], kSizes);
      if (!std::is_sorted(grid.sizes[a].begin(), grid.sizes[a].end()))
        of.fail(*table->get(kGridAxes[a]), fmt::format("{} must ascend", kGridAxes[a]));
      points *= grid.sizes[a].size();
    }
    grid.rates = read_list(of, "gflops", kGigaflops);
    of.finish();
    if (grid.rates.size() != points)
      of.fail(*table->get("gflops"),
              fmt::format("gflops has {} numbers; the sizes make {}", grid.rates.size(), points));
    for (double& rate : grid.rates) rate *= 1e9;
  }
  section.finish();
}

void read_curves(Section section, const toml::table* table, std::map<std::string, Curve>& curves,
                 const Limit& limit) {
  Units units(section, table);
  for (const std::string& name : kernel_names_and_classes()) {
    Curve curve;
    units.read(name, curve, limit);
    if (!curve.empty()) curves[name] = curve;
  }
  section.finish();
}

void read_pace(Section section, const toml::table* table, Cluster& c) {
  Units units(section, table);
  units.read("matmul_gflops", kGiga, c.pace.flops, true, kGigaflops);
  units.read("copy_gb_per_s", kGiga, c.pace.bandwidth, true, kGigabytesPerSecond);
  section.finish();
}

void read_carried(Section section, const toml::table* table, Cluster& c) {
  Units units(section, table);
  c.messages_block = true;
  for (const Verb verb : {Verb::all_reduce, Verb::reduce_scatter, Verb::all_gather, Verb::all_to_all,
                          Verb::broadcast, Verb::send, Verb::recv}) {
    const std::string name = verb_name(verb);
    Carried carried;
    for (const auto& [key, curve] :
         {std::pair{"_start", &carried.start}, std::pair{"_wait", &carried.wait}}) {
      units.read(name + key, *curve, kCarried);
      std::vector<std::pair<double, double>> points = curve->points();
      for (auto& [bytes, rate] : points) rate *= kGiga;
      *curve = Curve(std::move(points));
    }
    c.carried[name] = std::move(carried);
  }
  section.finish();
}

}  // namespace

Cluster read_cluster(const toml::table& file, const std::string& path) {
  Cluster c;
  Section top(path, "the file", &file);
  top.read("name", c.name);
  for (const auto& [key, value] :
       {std::pair{"devices", &c.devices}, std::pair{"devices_per_node", &c.per_node}}) {
    const toml::node* node = file.get(key);
    if (!node) top.lacks(key);
    top.read(key, *value);
    if (node && (*value < 1 || *value > kMostOfAWord))
      top.fail(*node, fmt::format("{} is {}; it must be from 1 to {}", key, *value, kMostOfAWord));
  }
  const auto section = [&](const char* name, bool required) {
    const toml::table* table = top.table(name);
    if (!table && required) top.lacks(fmt::format("[{}]", name));
    return table;
  };
  if (const auto* t = section("device", true)) read_device({path, "[device]", t}, t, c);
  if (const auto* t = section("efficiency", false))
    read_curves({path, "[efficiency]", t}, t, c.efficiency, kPart);
  if (const auto* t = section("crowd", false)) read_curves({path, "[crowd]", t}, t, c.crowd, kCrowdPart);
  if (const auto* t = section("grid", false)) read_grids(path, {path, "[grid]", t}, c);
  if (const auto* t = section("node", c.per_node > 1)) read_link({path, "[node]", t}, t, c.node, true);
  if (const auto* t = section("network", c.devices > c.per_node))
    read_link({path, "[network]", t}, t, c.network, true);
  if (const auto* t = section("host", false)) read_host({path, "[host]", t}, t, c);
  if (const auto* t = section("disk", false)) read_disk({path, "[disk]", t}, t, c);
  if (const auto* t = section("trainer", false)) read_trainer({path, "[trainer]", t}, t, c);
  if (const auto* t = section("pace", false)) read_pace({path, "[pace]", t}, t, c);
  if (const auto* t = section("messages", false)) read_carried({path, "[messages]", t}, t, c);
  if (const auto* t = section("process", false)) read_process({path, "[process]", t}, t, c);
  top.finish();
  return c;
}

}  // namespace lockstep
