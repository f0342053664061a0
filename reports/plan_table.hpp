// The table /plans of a run file, by columns (reports/schema.md).
#pragma once
#include <string>
#include <vector>

#include "reports/h5.hpp"
#include "reports/record.hpp"

namespace lockstep {

void write_plans(h5::Writer&, const std::vector<PlanRecord>&);

// Every row. A column that is missing was not yet kept when the file was written; the field has its default.
// Of several rows a list is read without the NaNs at its end (schema.md). UserError: it is damaged.
std::vector<PlanRecord> read_plans(const h5::Reader&);
// The plan of a table with one row and every column. UserError: it is damaged, or has another number of rows.
PlanRecord read_plan(const h5::Reader&);

}  // namespace lockstep
