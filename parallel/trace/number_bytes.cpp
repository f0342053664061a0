#include "parallel/trace/number_bytes.hpp"

#include <stdexcept>
#include <string>

#include "kernels/extents.hpp"

namespace lockstep {

double bytes_of_a_number(const Trace::Event& e) {
  std::vector<i64> extents = extents_of(e.name, e.numbers);
  if (extents.size() != e.views.size()) std::erase(extents, 0);  // pieces left out
  if (extents.size() != e.views.size()) throw std::logic_error(std::string("operands of ") + e.name);
  double numbers = 0, bytes = 0;
  for (std::size_t i = 0; i < extents.size(); ++i) {
    const Type type = e.views[i].type;
    if (type != Type::f32 && type != Type::bf16) continue;  // ids and counters are few
    const auto n = static_cast<double>(extents[i]);
    numbers += n, bytes += n * static_cast<double>(type_bytes(type));
  }
  return numbers > 0 ? bytes / numbers : 4;
}

}  // namespace lockstep
