#include "suites/planner/cluster_text.hpp"

#include <fmt/format.h>

#include "suites/bytes.hpp"

namespace lockstep {

std::string cluster_text(const Cluster& c, const std::string& comment) {
  // A line of the file; of no points none.
  const auto line = [](const std::string& name, const Curve& curve, double unit = 1) {
    if (curve.empty()) return std::string();
    std::string text;
    for (const auto& [x, y] : curve.points())
      text += fmt::format("{}[{:.6g}, {:.5g}]", text.empty() ? "" : ", ", x, y / unit);
    return fmt::format("{} = [{}]\n", name, text);
  };
  const auto list = [](const std::vector<double>& numbers, double unit) {
    std::string text;
    for (const double x : numbers) text += fmt::format("{}{:.6g}", text.empty() ? "" : ", ", x / unit);
    return "[" + text + "]";
  };
  std::string out = fmt::format("# {}\nname = \"{}\"\ndevices = {}\ndevices_per_node = {}\n\n", comment,
                                c.name, c.devices, c.per_node);
  out += fmt::format(
      "[device]\nmemory_gib = {:.4f}\ntflops = {:.6g}\nmemory_gb_per_s = {:.6g}\nlaunch_us = "
      "{:.4g}\ndispatch_us = {:.4g}\nweight_bytes = {}\ngradient_bytes = {}\nactivation_bytes = {}\n\n"
      "[efficiency]\n",
      c.memory / kGiB, c.flops / 1e12, c.memory_bandwidth / 1e9, c.launch * 1e6, c.dispatch * 1e6,
      c.weight_bytes, c.gradient_bytes, c.activation_bytes);
  for (const auto& [name, curve] : c.efficiency) out += line(name, curve);
  out += "\n[crowd]\n";
  for (const auto& [name, curve] : c.crowd) out += line(name, curve);
  for (const auto& [name, grid] : c.grids) {
    out += fmt::format("\n[grid.{}]\n", name);
    for (std::size_t a = 0; a < 3; ++a) out += fmt::format("{} = {}\n", kGridAxes[a], list(grid.sizes[a], 1));
    out += fmt::format("gflops = {}\n", list(grid.rates, 1e9));
  }
  if (c.messages_block) {
    out += "\n[messages]\n";
    for (const auto& [verb, carried] : c.carried)
      out += line(verb + "_start", carried.start, 1e9) + line(verb + "_wait", carried.wait, 1e9);
  }
  for (const auto& [name, link] : {std::pair{"node", &c.node}, std::pair{"network", &c.network}}) {
    if (link->bandwidth <= 0) continue;
    out += fmt::format("\n[{}]\ngb_per_s = {:.6g}\nlatency_us = {:.4g}\n", name, link->bandwidth / 1e9,
                       link->latency * 1e6);
    out += line("by_bytes", link->by_bytes) + line("by_nodes", link->by_nodes) +
           line("halves_by_nodes", link->halves_by_nodes);
  }
  out += fmt::format(
      "\n[host]\nlink_gb_per_s = {:.6g}\nmemory_gib = {:.4f}\nmemory_gb_per_s = {:.6g}\n"
      "copies_block = {}\n",
      c.host.bandwidth / 1e9, c.host_memory / kGiB, c.host_bandwidth / 1e9, c.copies_block);
  out += line("by_bytes", c.host.by_bytes);
  if (c.disk.bandwidth > 0)
    out += fmt::format("\n[disk]\nsize_gb = {:.6g}\ngb_per_s = {:.6g}\n", c.disk_bytes / 1e9,
                       c.disk.bandwidth / 1e9);
  if (c.pace.flops > 0)
    out += fmt::format("\n[pace]\nmatmul_gflops = {:.6g}\ncopy_gb_per_s = {:.6g}\n", c.pace.flops / 1e9,
                       c.pace.bandwidth / 1e9);
  out += fmt::format(
      "\n[process]\ncontext_gib = {:.6f}\ncommunicator_gib = {:.6f}\nworkspace_gib = {:.6f}\nfragmentation = "
      "{:.4f}\n",
      c.context / kGiB, c.communicator / kGiB, c.workspace / kGiB, c.fragmentation);
  return out;
}

}  // namespace lockstep
