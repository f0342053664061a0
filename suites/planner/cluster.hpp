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
  Curve by_bytes;           // part of the bandwidth that a message of so many bytes reaches
  Curve by_nodes;           // part that is left when so many nodes talk at once
  Curve halves_by_nodes{};  // the same of reduce_scatters and all_gathers; without points they are as above
};

// What the program that trains does and this project's executor does not. All of it is nothing by default.
struct OtherTrainer {
  bool balanced_stages = false;  // layers are dealt to stages by their weights, the head counted
  double issue = 0;              // seconds of the host for a kernel or message; it runs ahead of the device
  double staged_issue = 0;       // more of them for each other rank of a tp message, between pipeline stages
  double microbatch = 0;         // seconds beside the kernels of a microbatch's forward and backward
  double exposed_tp = 1;         // part of tp's messages that kernels do not hide
  double exposed_dp = 0;         // part of dp's messages that nothing hides
  bool flat_rings = false;       // reduce_scatters and all_gathers across nodes know no hierarchy
  bool reduces_whole = false;    // zero=1 all_reduces gradients
  double weight_bytes = 0;       // held of each weight of a stage, beside the weight and its gradient
  double logit_bytes = 0;        // held of each logit while the head works, beside our own
  double ffn_bytes = 0;          // kept of each token and column of a layer's ffn, beside what we keep
  double gathered_bytes = 0;     // kept of each token and width of a layer for tp > 1, and not divided by tp
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
  // Seconds that the host takes to give the device one kernel or message: none takes less.
  double dispatch = 0;
  // Of a step: what no kernel or message accounts for (reading data, checking gradients, logging).
  double step = 0;
  // Where attention is not fused: bytes that pass over the memory for each element of its [tokens, tokens]
  // matrices, forward and backward. 0: it is fused, and half of each matrix, above the diagonal, is left out.
  double score = 0, score_dx = 0;
  // Kernels of it forward (backward: twice as many), and how many more where sequences times heads is no
  // multiple of `score_group`: fused softmax kernels take so many at once (Megatron-LM's: 4).
  double score_kernels = 1, score_apart = 0;
  i64 score_group = 1;
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

  // Where another trainer does otherwise than ours. With full checkpointing it runs a layer's last matmul
  // again, which backward has no need of (this the composition alone knows, not the whole trace); a stage
  // that sends waits until the message is there; ranks of a tp group, which all hold the same, send a part
  // each and gather them (Narayanan et al. 2021, section 4.1).
  bool recomputes_whole_layers = false, hand_over_blocks = false, hand_over_scattered = false;
  double hand_over = 0;  // seconds of one beside the message: host and device wait for each other

  // What a process holds beside its arena, in bytes: once, for each communicator, and as a part of the arena.
  double context = 0, communicator = 0, workspace = 0, fragmentation = 0;

  OtherTrainer trainer;
};

// A file, or FILE:gpu_type, the [cluster.gpu_type] of a group of published rows (suites/published/).
// (published/load_cluster.cpp.) UserError: no such file, a key that is unknown, missing or impossible, with
// file and line.
Cluster load_cluster(const std::string& path);
std::string cluster_file(const std::string& path);  // without the gpu_type

}  // namespace lockstep
