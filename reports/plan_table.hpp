// The table /plans of a run file, by columns (reports/schema.md).
#pragma once
#include <string>
#include <vector>

#include "reports/h5.hpp"
#include "reports/record.hpp"

namespace lockstep {

void write_plans(h5::Writer&, const std::vector<PlanRecord>&);

// The plan of a table with one row. UserError: it is damaged, or has another number of rows.
PlanRecord read_plan(const h5::Reader&);

}  // namespace lockstep
