// What all plans of a sweep are held to, made once: the single-device run, and the same in float64.
#pragma once
#include <string>

#include "suites/gates/fast.hpp"
#include "suites/run/reference.hpp"
#include "suites/sweep/suite.hpp"

namespace lockstep {

// The job whose processes are a plan's ranks (suites/commands/job.cpp).
struct Job {
  MpiWorld& world;
  Fabrics* fabrics;    // as in Launch
  bool cores_suffice;  // every thread of every rank has a core
  std::string hosts;   // "2 x node1, 2 x node2"; on rank 0
};

struct Standard {
  const Suite& suite;
  Settings settings;
  const ModelConfig& model;
  const TokenFile& data;
  bool timed = true;  // plans that pass are timed too, where the cores suffice
  // Null: ranks are threads of this process. Else all below is rank 0's alone, and empty on others.
  const Job* job = nullptr;
  Weights initial{};
  Whole reference{};
  std::string reference_hash{};
  FastReference float64{};
};

// Fills what is empty. file: where the single-device run is read from, and if it is to be kept written to, in
// a suite of weak scaling with its batch behind; empty: nowhere.
struct Made {
  bool was_kept;         // it was read
  double run, together;  // seconds: of the single-device run when it was made; of all that was made now
};
Made make(Standard&, const std::string& file, bool keep);

}  // namespace lockstep
