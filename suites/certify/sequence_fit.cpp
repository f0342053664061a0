#include "suites/certify/sequence_fit.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace lockstep {
namespace {

using Vector = SequenceFit::Vector;

double dot(const Vector& a, const Vector& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

// x of A x = b, for each b, A symmetric; nothing where A is not positive definite.
std::optional<std::vector<Vector>> solve(std::vector<Vector> a, std::vector<Vector> right) {
  const std::size_t n = a.size();
  for (std::size_t j = 0; j < n; ++j) {
    for (std::size_t k = 0; k < j; ++k) a[j][j] -= a[j][k] * a[j][k];
    if (!(a[j][j] > 0)) return {};
    a[j][j] = std::sqrt(a[j][j]);
    for (std::size_t i = j + 1; i < n; ++i) {
      for (std::size_t k = 0; k < j; ++k) a[i][j] -= a[i][k] * a[j][k];
      a[i][j] /= a[j][j];
    }
  }
  for (Vector& b : right) {
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t k = 0; k < i; ++k) b[i] -= a[i][k] * b[k];
      b[i] /= a[i][i];
    }
    for (std::size_t i = n; i-- > 0;) {
      for (std::size_t k = i + 1; k < n; ++k) b[i] -= a[k][i] * b[k];
      b[i] /= a[i][i];
    }
  }
  return right;
}

}  // namespace

SequenceFit::SequenceFit(Vector found) : found_(std::move(found)), square_(dot(found_, found_)) {}

void SequenceFit::add(Vector part) {
  parts_.push_back(std::move(part));
  products_.emplace_back();
  for (std::size_t i = 0; i + 1 < parts_.size(); ++i) {
    products_.back().push_back(dot(parts_[i], parts_.back()));
    products_[i].push_back(products_.back().back());
  }
  products_.back().push_back(dot(parts_.back(), parts_.back()));
  with_found_.push_back(dot(parts_.back(), found_));
}

double SequenceFit::left(const Vector& counts) const {
  double square = square_;
  for (std::size_t i = 0; i < counts.size(); ++i)
    square += counts[i] * (dot(products_[i], counts) - 2 * with_found_[i]);
  return std::sqrt(std::max(0.0, square));
}

double SequenceFit::factor() const {
  double square = 0;
  for (const Vector& row : products_) square += std::accumulate(row.begin(), row.end(), 0.0);
  return std::accumulate(with_found_.begin(), with_found_.end(), 0.0) / square;
}

std::optional<SequenceFit::Solved> SequenceFit::least_squares() const {
  const std::size_t n = parts_.size();
  std::vector<Vector> right(n, Vector(n));
  for (std::size_t i = 0; i < n; ++i) right[i][i] = 1;
  right.push_back(with_found_);
  const std::optional<std::vector<Vector>> solved = solve(products_, right);
  if (!solved) return {};
  Vector diagonal;
  for (std::size_t i = 0; i < n; ++i) diagonal.push_back((*solved)[i][i]);
  return Solved{solved->back(), diagonal};
}

}  // namespace lockstep
