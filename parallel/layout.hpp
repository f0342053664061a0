// A rank's parameters: the reference's table, narrowed by the seam (slice) and the stage (which units).
#pragma once
#include <functional>
#include <vector>

#include "parallel/mesh.hpp"
#include "ref/params.hpp"

namespace lockstep {

// Local sizes of a layer on one rank. A whole layer has cut = the model's own sizes.
struct Cut {
  i64 heads, kv_heads, ffn;  // in this rank's branches
  i64 vocab, vocab_first;    // stored columns of the head, and the first one's token id
  i64 vocab_valid;           // of the stored columns, those that are tokens
  i64 leaves;                // R / tp: leaves of the sums this rank's branches take part in
  i64 seq;                   // Ts: tokens of a sequence this rank sees outside the branches
  i64 seq_leaves;            // chunks of those
  i64 kv_first, kv_cols;     // columns of dk, dv this rank puts into the input gradient
};

// A rectangle of a parameter: rows [row, row + rows), columns [col, col + cols).
struct Slice {
  i64 row, rows, col, cols;
  Axis replicated = Axis::count;  // ranks along this axis hold the same rectangle; count: nobody else
};

struct LocalParam {
  int param;  // index in the table
  Slice slice;
  int unit;   // 0 embedding, 1..L layers, L+1 final norm, L+2 head
  i64 first;  // elements from the unit's start
  bool decayed;
  int alias = -1;  // tied head on the embedding's stage: the local parameter whose weight it uses
  i64 count() const { return slice.rows * slice.cols; }
  // Where element i lies in the whole parameter, which has so many columns.
  i64 place(i64 i, i64 cols) const {
    return (slice.row + i / slice.cols) * cols + slice.col + i % slice.cols;
  }
};

// Units are gathered, reduced and sharded together: 0 embedding, 1..L layers, L+1 final norm, L+2 head.
struct LocalParams {
  std::vector<Param> table;
  std::vector<LocalParam> all;     // by unit, then in table order
  std::vector<int> of_table;       // table index -> index in all, -1: another stage's
  std::vector<int> units;          // this stage's, ascending
  std::vector<i64> unit_elements;  // by unit number: gradient elements of a unit
  std::vector<i64> unit_weights;   // by unit number: weight elements of a unit (0 for an alias)
  int local(int table_index) const { return of_table[table_index]; }
};

LocalParams narrow(const std::vector<Param>& table, int layers, const std::vector<int>& units,
                   const std::function<Slice(const Param&)>& slice);

// Every element counts once in the gradient norm: on the first of the ranks that hold the same rectangle.
// (Stores add their own axis.)
bool counts_in_norm(const LocalParams&, int local, const Mesh&, int rank);

}  // namespace lockstep
