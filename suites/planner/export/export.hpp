// A plan taken elsewhere: the arguments or the configuration file of another trainer, and what that has no
// words for. One system is one file, export_<name>.cpp, and registers itself.
#pragma once
#include <fmt/format.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "parallel/plan.hpp"
#include "suites/planner/answer/explain.hpp"

namespace lockstep {

struct Exported {
  std::string text;                  // as the system's own parser reads it
  std::vector<std::string> missing;  // a sentence for each thing that it cannot express, or only nearly
  std::vector<std::string> usage;    // how to run it
  // The values that are run there, of words that it reads otherwise. Where no value of ours is quite that,
  // the nearest that keeps no less on the device; where none is near, the word stays, and its sentence with
  // it.
  std::map<std::string, std::string> instead;
};

struct Exporter {
  // UserError: the system cannot run this mesh at all, and a file would be of another plan.
  using Write = Exported (*)(const Question&, const Plan&);
  std::string name;
  Write write;
  std::string comment;  // what begins a line of comment in its text; empty: it has none
  Exporter(std::string name, Write write, std::string comment);
};

// UserError: no such system; the sentence lists those there are.
const Exporter& exporter(const std::string& name);
std::vector<std::string> export_names();

// The text with usage and gaps as comments. Words of the plan that the exporter never asked for are gaps too.
// `note`: what else is said of the plan.
Exported exported(const Exporter&, const Question&, const Plan&, const std::string& note = "");

// The plan that is run where this one is exported. UserError: as Exporter::Write.
Plan as_written(const Exporter&, const Question&, Plan);

// Writes to a file, or to standard output where its name is empty; the gaps to standard error. Returns the
// exit status. UserError: as above, or the file cannot be written.
int write_export(const std::string& system, const std::string& file, const Question&, const Plan&,
                 const std::string& note = "");

// ---- What several exporters ask -----------------------------------------------------------------------
i64 microbatches(const Settings&, const Plan&);  // of a replica and step
i64 layer_elements(const ModelConfig&, int tp);  // weights of a layer on a rank
int machines(const Cluster&, const Plan&);       // nodes that its ranks fill
i64 schedule_steps(const Settings&);             // of the learning rate
// Whether somebody chose them: the defaults are of a test's few steps, and no training is meant by them.
bool says_steps(const Settings&);
bool says_rate(const Settings&);
std::string says_word(const Plan&, const std::string& word);  // "ckpt=norms"
// GPipe of one stage holds all microbatches at once; elsewhere they are accumulated one by one.
void say_one_stage(const Plan&, Exported&);
// Groups of replicas divide dp in PyTorch's trainers, and share over cp too; a plan's are of one segment
// where they can be. `system`: whose groups. UserError: they do not divide dp.
void say_groups(const Plan&, const char* system, std::vector<std::string>& missing);
// "torchrun --nnodes 8 ...", with capitals where several nodes must be told of each other.
std::string torchrun(const Cluster&, const Plan&);
// Of several nodes: what each of them is told, by the names that the line has for it.
void say_nodes(const Cluster&, const Plan&, std::vector<std::string>& usage, const char* number = "NODE",
               const char* address = "HOST", const char* port = "PORT");
[[noreturn]] void cannot_run(const std::string& why, const Plan&, const std::string& words);

// What an exporter writes one plan with.
class PlanWriter {
 protected:
  PlanWriter(const Question& q, const Plan& p) : q_(q), p_(p) {}
  // What the system cannot express, or only nearly.
  template <class... Args>
  void say(fmt::format_string<Args...> text, Args&&... args) {
    x_.missing.push_back(fmt::format(text, std::forward<Args>(args)...));
  }
  std::string word(const char* name) const { return says_word(p_, name); }

  const Question& q_;
  const Plan& p_;
  Exported x_;
};

}  // namespace lockstep
