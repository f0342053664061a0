// A cluster as the planner sees it: devices, what joins them, and how much of the data sheet they reach.
// Files: suites/clusters/*.toml (suites/clusters/README.md explains each key).
#pragma once
#include <map>
#include <string>

#include "kernels/lanes.hpp"
#include "suites/planner/curve.hpp"
#include "suites/planner/grid.hpp"

namespace lockstep {

// Bytes per second of one device in one direction, and seconds before the first byte.
struct Link {
  double bandwidth = 0, latency = 0;
  Curve by_bytes;  // part of the bandwidth that a message of so many bytes reaches
  Curve by_nodes;  // part that is left when so many nodes talk at once
};

// What a message costs where the ranks carry it themselves: bytes a second of its payload, by that, of each
// rank where it starts it and where it waits for it.
struct Carried {
  Curve start, wait;
};

// How fast a core was when its cluster was measured: operations a second of a matmul in its cache, and bytes
// a second, read and written, of a copy beyond it.
struct Pace {
  double flops = 0, bandwidth = 0;
};

struct Cluster {
  std::string name;
  i64 devices = 1, per_node = 1;

  // A device: bytes; operations and bytes a second; seconds from one kernel to the next.
  double memory = 0, flops = 0, memory_bandwidth = 0, launch = 0;
  int weight_bytes = 2, gradient_bytes = 4, activation_bytes = 2;
  // By kernel ("matmul_dw"), else by class ("matmul", "attention", "rows"): the part of `flops` that a kernel
  // of so many operations reaches, or, of class rows, of `memory_bandwidth` one that moves so many bytes.
  std::map<std::string, Curve> efficiency;
  std::map<std::string, Grid> grids;  // by kernel, where its rate was measured by shape
  std::map<std::string, Curve>
      crowd;  // by class: part of the rate that is left when so many of a node compute

  Link node, network;      // within a node; between nodes
  Link host;               // between a device and the host's memory
  double host_memory = 0;  // a device's share, as the next
  double host_bandwidth = 0;
  Link disk;
  double disk_bytes = 0;
  bool copies_block = false;  // copies between memories are done by the computing thread itself
  // Messages are, too, between two ranks of a node: by verb. The links above then carry none.
  bool messages_block = false;
  std::map<std::string, Carried> carried;

  Pace pace;  // 0: not measured

  // What a process holds beside its arena, in bytes: once, for each communicator, and as a part of the arena.
  double context = 0, communicator = 0, workspace = 0, fragmentation = 0;
};

// UserError: no such file, a key that is unknown, missing or impossible, with file and line.
Cluster load_cluster(const std::string& path);

}  // namespace lockstep
