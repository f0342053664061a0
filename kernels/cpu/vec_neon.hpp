// Four floats in one register of 64-bit Arm: the twin of vec_avx2.hpp. Its 32 registers hold a matmul's block
// of 8 x 3 accumulators.
#pragma once
#include <arm_neon.h>

#include "kernels/bf16.hpp"
#include "kernels/cpu/always_inline.hpp"
#include "kernels/lanes.hpp"

namespace lockstep::simd {

struct NeonDouble {
  float64x2_t v;
  static LOCKSTEP_INLINE NeonDouble zero() { return {vdupq_n_f64(0)}; }
  static LOCKSTEP_INLINE NeonDouble all(double x) { return {vdupq_n_f64(x)}; }
  static LOCKSTEP_INLINE NeonDouble from_floats(const float* p) { return {vcvt_f64_f32(vld1_f32(p))}; }
  LOCKSTEP_INLINE void store(double* p) const { vst1q_f64(p, v); }
  static LOCKSTEP_INLINE NeonDouble either(NeonDouble a, NeonDouble b) {
    return {vreinterpretq_f64_u64(vorrq_u64(vreinterpretq_u64_f64(a.v), vreinterpretq_u64_f64(b.v)))};
  }
  LOCKSTEP_INLINE bool all_zero() const { return vmaxvq_u32(vreinterpretq_u32_f64(v)) == 0; }
  friend LOCKSTEP_INLINE NeonDouble operator+(NeonDouble a, NeonDouble b) { return {vaddq_f64(a.v, b.v)}; }
  friend LOCKSTEP_INLINE NeonDouble operator-(NeonDouble a, NeonDouble b) { return {vsubq_f64(a.v, b.v)}; }
  friend LOCKSTEP_INLINE NeonDouble operator*(NeonDouble a, NeonDouble b) { return {vmulq_f64(a.v, b.v)}; }
};

struct Neon {
  static constexpr int kWidth = 4;
  static constexpr int kTileRows = 8, kTileVectors = 3;
  struct Mask {
    int n;  // the first n lanes; NEON has no masked loads
  };
  using Double = NeonDouble;
  float32x4_t v;

  static LOCKSTEP_INLINE Neon zero() { return {vdupq_n_f32(0)}; }
  static LOCKSTEP_INLINE Neon all(float x) { return {vdupq_n_f32(x)}; }
  static LOCKSTEP_INLINE Neon load(const float* p) { return {vld1q_f32(p)}; }
  LOCKSTEP_INLINE void store(float* p) const { vst1q_f32(p, v); }

  // bf16.hpp, lane by lane: widened exactly, rounded to the nearest, ties to even.
  static LOCKSTEP_INLINE Neon load(const bf16* p) {
    return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<const std::uint16_t*>(p)), 16))};
  }
  LOCKSTEP_INLINE void store(bf16* p) const {
    const uint32x4_t wide = vreinterpretq_u32_f32(v);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(wide, 16), vdupq_n_u32(1));
    const uint32x4_t near = vaddq_u32(vaddq_u32(wide, vdupq_n_u32(0x7fff)), odd);
    const uint16x4_t y = vbsl_u16(vmovn_u32(vceqq_f32(v, v)), vshrn_n_u32(near, 16), vdup_n_u16(0x7fc0));
    vst1_u16(reinterpret_cast<std::uint16_t*>(p), y);
  }

  // Fewer than a register's lanes: one by one, at the edges alone.
  template <class X>
  static LOCKSTEP_INLINE Neon load(const X* p, Mask m) {
    if (m.n == kWidth) return load(p);
    X some[kWidth] = {};
    for (int i = 0; i < m.n; ++i) some[i] = p[i];
    return load(some);
  }
  template <class X>
  LOCKSTEP_INLINE void store(X* p, Mask m) const {
    if (m.n == kWidth) return store(p);
    X some[kWidth];
    store(some);
    for (int i = 0; i < m.n; ++i) p[i] = some[i];
  }
  static LOCKSTEP_INLINE Mask first(i64 n) { return {n >= kWidth ? kWidth : n <= 0 ? 0 : int(n)}; }
  static LOCKSTEP_INLINE Neon select(Mask m, Neon a, Neon b) {
    const std::int32_t lane[kWidth] = {0, 1, 2, 3};
    return {vbslq_f32(vcltq_s32(vld1q_s32(lane), vdupq_n_s32(m.n)), a.v, b.v)};
  }

  friend LOCKSTEP_INLINE Neon operator+(Neon a, Neon b) { return {vaddq_f32(a.v, b.v)}; }
  friend LOCKSTEP_INLINE Neon operator-(Neon a, Neon b) { return {vsubq_f32(a.v, b.v)}; }
  friend LOCKSTEP_INLINE Neon operator*(Neon a, Neon b) { return {vmulq_f32(a.v, b.v)}; }
  friend LOCKSTEP_INLINE Neon operator/(Neon a, Neon b) { return {vdivq_f32(a.v, b.v)}; }
  static LOCKSTEP_INLINE Neon fma(Neon a, Neon b, Neon c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
  static LOCKSTEP_INLINE void fma_into(Neon& c, Neon a, Neon b) { c.v = vfmaq_f32(c.v, a.v, b.v); }
  static LOCKSTEP_INLINE Neon fnma(Neon a, Neon b, Neon c) { return {vfmsq_f32(c.v, a.v, b.v)}; }
  static LOCKSTEP_INLINE Neon sqrt(Neon a) { return {vsqrtq_f32(a.v)}; }
  // b where they are equal or one is no number, as x86's; vmaxq_f32 would give the NaN and the positive zero.
  static LOCKSTEP_INLINE Neon max(Neon a, Neon b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
  static LOCKSTEP_INLINE Neon min(Neon a, Neon b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }

  // In two steps, of which only the second can round (exact_math.hpp); -150 <= n <= 128.
  static LOCKSTEP_INLINE Neon scale2(Neon x, Neon n) {
    const int32x4_t i = vcvtq_s32_f32(n.v), h = vshrq_n_s32(i, 1);
    return x * power_of_2(h) * power_of_2(vsubq_s32(i, h));
  }
  static LOCKSTEP_INLINE Neon power_of_2(int32x4_t i) {
    return {vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(i, vdupq_n_s32(127)), 23))};
  }
  LOCKSTEP_INLINE float largest() const { return vmaxvq_f32(v); }

  // Without signs, integers and floats are in the same order; as integers NaNs take part too.
  static LOCKSTEP_INLINE unsigned largest_magnitude(const float* p, i64 n) {
    uint32x4_t top = vdupq_n_u32(0);
    for (i64 i = 0; i < n; i += kWidth)
      top = vmaxq_u32(top, vandq_u32(vreinterpretq_u32_f32(vld1q_f32(p + i)), vdupq_n_u32(0x7fffffff)));
    return vmaxvq_u32(top);
  }

  // dst[k * ld + j] = src[j * src_ld + k] for 4 rows j and 4 columns k.
  template <class X>
  static LOCKSTEP_INLINE void transpose4(const X* src, i64 src_ld, float* dst, i64 ld) {
    const Neon q[4] = {load(src), load(src + src_ld), load(src + 2 * src_ld), load(src + 3 * src_ld)};
    const float32x4x2_t even = vtrnq_f32(q[0].v, q[1].v), odd = vtrnq_f32(q[2].v, q[3].v);
    vst1q_f32(dst, vcombine_f32(vget_low_f32(even.val[0]), vget_low_f32(odd.val[0])));
    vst1q_f32(dst + ld, vcombine_f32(vget_low_f32(even.val[1]), vget_low_f32(odd.val[1])));
    vst1q_f32(dst + 2 * ld, vcombine_f32(vget_high_f32(even.val[0]), vget_high_f32(odd.val[0])));
    vst1q_f32(dst + 3 * ld, vcombine_f32(vget_high_f32(even.val[1]), vget_high_f32(odd.val[1])));
  }

  // The fold of a lane sum: lane[i] += lane[i+8], then +4, +2, +1.
  static LOCKSTEP_INLINE float fold16(const Neon* lanes) {
    const float32x4_t s4 = vaddq_f32(vaddq_f32(lanes[0].v, lanes[2].v), vaddq_f32(lanes[1].v, lanes[3].v));
    const float32x2_t s2 = vadd_f32(vget_low_f32(s4), vget_high_f32(s4));
    return vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1);
  }
};

}  // namespace lockstep::simd
