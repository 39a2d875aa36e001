// One vector type for every instruction set.
//
// setup.py compiles each operation's cpu.cpp once for every instruction set, with CSM_ISA naming it; native.py
// chooses at run time. Everything here and in cpu.cpp is internal to that compilation: a function shared between
// them could be linked from the one the CPU lacks. For the same reason nothing comes from the C++ library.
#pragma once

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define CSM_JOIN_(a, b, c) a##b##_##c
#define CSM_JOIN(a, b, c) CSM_JOIN_(a, b, c)
// The exported name of an operation: csm_rvq_search_avx2, ...
#define CSM_EXPORT(name) extern "C" __attribute__((visibility("default"))) void CSM_JOIN(csm_, name, CSM_ISA)

#define CSM_INLINE static inline __attribute__((always_inline))

namespace {

#if defined(__AVX512F__)
constexpr int W = 16;  // lanes of a vector
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float vf __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * W), aligned(4), may_alias));

CSM_INLINE vf load(const float* p) { return *reinterpret_cast<const vf*>(p); }
CSM_INLINE void store(float* p, vf v) { *reinterpret_cast<vf*>(p) = v; }
CSM_INLINE vi load(const int32_t* p) { return *reinterpret_cast<const vi*>(p); }
CSM_INLINE void store(int32_t* p, vi v) { *reinterpret_cast<vi*>(p) = v; }
CSM_INLINE vf all(float x) { return x - vf{}; }
CSM_INLINE vi all(int32_t x) { return x - vi{}; }
CSM_INLINE vf select(vi mask, vf a, vf b) { return mask ? a : b; }
CSM_INLINE vi select(vi mask, vi a, vi b) { return mask ? a : b; }

CSM_INLINE vi lanes() {
  vi v;
  for (int i = 0; i < W; ++i) v[i] = i;
  return v;
}

#if defined(__AVX512F__)
CSM_INLINE vf fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
CSM_INLINE vf max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
CSM_INLINE vf min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
CSM_INLINE vf to_float(vi a) { return (vf)_mm512_cvtepi32_ps((__m512i)a); }
CSM_INLINE vi round_to_int(vf a) { return (vi)_mm512_cvtps_epi32((__m512)a); }
#elif defined(__AVX2__)
CSM_INLINE vf fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
CSM_INLINE vf max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
CSM_INLINE vf min(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
CSM_INLINE vf to_float(vi a) { return (vf)_mm256_cvtepi32_ps((__m256i)a); }
CSM_INLINE vi round_to_int(vf a) { return (vi)_mm256_cvtps_epi32((__m256)a); }
#else
CSM_INLINE vf fma(vf a, vf b, vf c) { return a * b + c; }
CSM_INLINE vf max(vf a, vf b) { return select(a > b, a, b); }
CSM_INLINE vf min(vf a, vf b) { return select(a < b, a, b); }
CSM_INLINE vf to_float(vi a) { return __builtin_convertvector(a, vf); }
CSM_INLINE vi round_to_int(vf a) {
  vi v;
  for (int i = 0; i < W; ++i) v[i] = (int32_t)lrintf(a[i]);
  return v;
}
#endif

CSM_INLINE float sum(vf v) {
  float s = 0;
  for (int i = 0; i < W; ++i) s += v[i];
  return s;
}

// e^x = 2^n (1 + p) for -87 <= x <= 0: x = n ln 2 + r, p = e^r - 1 by a polynomial of degree 6 (Cephes' expf).
struct Exponential {
  vf power, p;
};
CSM_INLINE Exponential split_exponential(vf x) {
  const vi n = round_to_int(x * 1.44269504088896341f);
  const vf nf = to_float(n);
  vf r = fma(nf, all(-0.693359375f), x);
  r = fma(nf, all(2.12194440e-4f), r);
  vf p = all(1.9875691500e-4f);
  p = fma(p, r, all(1.3981999507e-3f));
  p = fma(p, r, all(8.3334519073e-3f));
  p = fma(p, r, all(4.1665795894e-2f));
  p = fma(p, r, all(1.6666665459e-1f));
  p = fma(p, r, all(5.0000001201e-1f));
  return {(vf)((n + 127) << 23), fma(p, r * r, r)};
}

// e^x for x <= 0, within 1.5 units in the last place; 0 below -87, where e^x leaves the normal numbers.
CSM_INLINE vf exp_negative(vf x) {
  const Exponential e = split_exponential(max(x, all(-87.0f)));
  return select(x < -87.0f, vf{}, fma(e.power, e.p, e.power));
}

// 1 - e^x for x <= 0, as precise near 0 as anywhere.
CSM_INLINE vf one_minus_exp(vf x) {
  const Exponential e = split_exponential(max(x, all(-87.0f)));
  return (1.0f - e.power) - e.power * e.p;
}

// W rows of `from` (row stride `stride`), W columns, written as columns: to[c * to_stride + r] = from[r * stride + c].
CSM_INLINE void transpose(const float* from, int64_t stride, float* to, int64_t to_stride) {
#if defined(__AVX512F__)
  __m512 a[16], b[16];
  for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_ps(from + i * stride);
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_shuffle_ps(b[i], b[i + 2], 0x44);
    a[i + 1] = _mm512_shuffle_ps(b[i], b[i + 2], 0xee);
    a[i + 2] = _mm512_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    a[i + 3] = _mm512_shuffle_ps(b[i + 1], b[i + 3], 0xee);
  }
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 4; ++j) {
      b[i + j] = _mm512_shuffle_f32x4(a[i + j], a[i + j + 4], 0x88);
      b[i + j + 4] = _mm512_shuffle_f32x4(a[i + j], a[i + j + 4], 0xdd);
    }
  for (int j = 0; j < 8; ++j) {
    a[j] = _mm512_shuffle_f32x4(b[j], b[j + 8], 0x88);
    a[j + 8] = _mm512_shuffle_f32x4(b[j], b[j + 8], 0xdd);
  }
  for (int i = 0; i < 16; ++i) _mm512_storeu_ps(to + i * to_stride, a[i]);
#elif defined(__AVX2__)
  __m256 a[8], b[8];
  for (int i = 0; i < 8; ++i) a[i] = _mm256_loadu_ps(from + i * stride);
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
    a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
    a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
  }
  for (int j = 0; j < 4; ++j) {
    b[j] = _mm256_permute2f128_ps(a[j], a[j + 4], 0x20);
    b[j + 4] = _mm256_permute2f128_ps(a[j], a[j + 4], 0x31);
  }
  for (int i = 0; i < 8; ++i) _mm256_storeu_ps(to + i * to_stride, b[i]);
#else
  for (int c = 0; c < W; ++c)
    for (int r = 0; r < W; ++r) to[c * to_stride + r] = from[r * stride + c];
#endif
}

// The same for `rows` <= W rows and any number of columns; lanes of missing rows are 0.
[[maybe_unused]] static void transpose_rows(const float* from, int64_t stride, int rows, int64_t columns, float* to,
                                            int64_t to_stride) {
  int64_t c = 0;
  if (rows == W)
    for (; c + W <= columns; c += W) transpose(from + c, stride, to + c * to_stride, to_stride);
  for (; c < columns; ++c)
    for (int r = 0; r < W; ++r) to[c * to_stride + r] = r < rows ? from[r * stride + c] : 0.0f;
}

// Small matrix products go in tiles of MR rows by NR lanes, whose sums stay in registers: with AVX-512 24 sums, two
// vectors of lanes and one row's value are 27 of 32 registers.
#if defined(__AVX512F__)
constexpr int MR = 12;
#else
constexpr int MR = 6;
#endif
constexpr int NV = 2;
constexpr int NR = NV * W;

template <int M>
struct Height {
  static constexpr int value = M;
};

template <int M = MR, typename Take>
CSM_INLINE void take_height(int64_t height, int64_t row, const Take& take) {
  if (height == M) return take(Height<M>{}, row);
  if constexpr (M > 1) take_height<M - 1>(height, row, take);
}

// Cuts `rows` into tiles of nearly equal height, at most MR: take(Height<M>, first row) for each.
template <typename Take>
CSM_INLINE void in_tiles(int64_t rows, const Take& take) {
  const int64_t tiles = (rows + MR - 1) / MR;
  for (int64_t t = 0, row = 0; t < tiles; ++t) {
    const int64_t height = rows / tiles + (t < rows % tiles);
    take_height(height, row, take);
    row += height;
  }
}

CSM_INLINE float* scratch(int64_t floats) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, (size_t)(floats > 0 ? floats : 1) * sizeof(float))) abort();
  return static_cast<float*>(memory);
}

}  // namespace
