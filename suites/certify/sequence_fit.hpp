// A gradient as a sum of sequences' parts, each counted so often: how much of it that leaves.
#pragma once
#include <optional>
#include <vector>

namespace lockstep {

class SequenceFit {
 public:
  using Vector = std::vector<double>;

  // found, part: one tensor's numbers, of the gradient and of one sequence's part in it.
  explicit SequenceFit(Vector found);
  void add(Vector part);

  // Euclidean distance of what was found from the parts so counted.
  double left(const Vector& counts) const;
  // The one count of all parts that leaves least.
  double factor() const;
  // The counts that leave least (normal equations, by Cholesky), and the diagonal of the inverse of the
  // parts' products. Nothing where parts are too much alike.
  struct Solved {
    Vector counts, inverse;
  };
  std::optional<Solved> least_squares() const;

 private:
  const Vector found_;
  const double square_;
  std::vector<Vector> parts_, products_;  // of parts with each other
  Vector with_found_;
};

}  // namespace lockstep
