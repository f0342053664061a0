// A fault put in on purpose: one call that strategies or the executor make of their device goes wrong as it
// passes. Trace and run share it, since both go through the same door; so they cannot disagree about it.
#pragma once
#include <optional>
#include <string>
#include <vector>

namespace lockstep {

struct Mutation {
  // Which call. A message's or copy's wait belongs to its start, a buffer's release to its take.
  enum class Door { run, start, copy, take, upload };
  enum class Change {
    dropped,      // run, upload; start, copy: with its wait
    doubled,      // the same
    late,         // run, start: after the next kernel instead of before it
    number,       // run: the index-th number is `value`, or: a flag turned over, an integer an eighth less, a
                  // scale doubled
    rescaled,     // run: the index-th number halved once more at each call
    own_count,    // run of ce_dx: the scale is 1 / (index x the valid labels of this call)
    operand,      // run: the index-th buffer from 64 elements further on
    exchanged,    // run: add for copy, copy for add
    group,        // start: on axis `index`
    peer,         // start of a send or recv: the next one of `index` members
    count,        // start, copy, upload: one element less
    half,         // start: half the elements
    place,        // start, copy: the input (if none: the output) from its next element on
    number_type,  // start: as integers
    reduction,    // start: max for sum, sum for max
    scaled,       // start: what has arrived is halved
    gathered,     // start: the first half of what has arrived is doubled
    tag,          // start of a send or recv: the next one
    at_once,      // start, copy: waited for at once
    never_waited_for,
    waited_twice,  // start
    waited_late,   // start, copy: after the next kernel
    early,         // take: given back before its last use
    never,         // take: given back at the step's end only
    shorter,       // take: one element less
    longer,        // take: one element more
  };
  Door door{};
  Change change{};
  std::string name;    // of the kernel, message, copy or buffer; # stands for any number
  std::string tensor;  // run, upload: the buffer that is written
  int occurrence = 0;  // of this name and tensor in set-up or step; -1: every one
  int index = 0;       // see `change`
  int rank = -1;       // -1: on every rank that makes the call
  bool setup = false;  // before the first step
  std::string action;  // not empty: only in this pass, as Device::note_action() names it
  std::optional<double> value{};
  std::vector<int> after{};  // early: by rank, calls between take and last use; -1: not there

  std::string hook{};  // not empty: no call of the device, but what parallel/mutant.hpp says by this name

  std::string text() const;  // "all_reduce `layers.1.attn.out` #3: dropped"
};
const char* change_name(Mutation::Change);

std::string without_digits(const std::string& name);  // # for every number

// What this process does wrong, on every device that it makes; nullptr: nothing.
inline const Mutation* active_mutation = nullptr;

}  // namespace lockstep
