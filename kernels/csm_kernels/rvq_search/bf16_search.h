// The search of many rows at bf16 speed with the codes of the fp32 search, for CPUs that multiply bf16.
//
// Every candidate is scored by a bf16 product. With dr = r - bf16(r), dc likewise, that score lies within
//   E = |dr| max|c| + |r| max|dc| + (roundings of both sums)
// of the fp32 score that score_tile (cpu.cpp) computes, so the code of the smallest fp32 score is among the candidates
// within 2 E of the smallest bf16 score. Mostly that is one candidate and the row is done; else those few are scored
// again in fp32, in score_tile's order of d. The codes are therefore those of the fp32 search, bit by bit.
#pragma once

#include "tile.h"

namespace {

constexpr double ROUNDING = 1.0 / (1 << 23);  // twice fp32's: room for a product unit that truncates

struct Bf16Book {
  int64_t pairs, panels, padded;  // of bf16 along D; of NR codes; panels * NR
  float *packed, *norms;          // [panels][pairs][NR] pairs of bf16; [padded], infinite beyond V
  double largest, largest_error;  // over the codes: |c|, |c - bf16(c)|
};

// D numbers as pairs of bf16 (a missing last one is 0). Returns |x|^2; *error gets |x - bf16(x)|^2.
double to_pairs(const float* x, int64_t width, uint32_t* pairs, double* error) {
  double square = 0, lost = 0;
  uint16_t* to = reinterpret_cast<uint16_t*>(pairs);
  for (int64_t d = 0; d < width; d += W) {
    const __mmask16 present = width - d < W ? (__mmask16)((1u << (width - d)) - 1) : (__mmask16)0xffff;
    const __m512 value = _mm512_maskz_loadu_ps(present, x + d);
    const __m256i bits = (__m256i)_mm512_cvtneps_pbh(value);
    const __m512 rounded = (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
    const __m512 rest = value - rounded;
    const int64_t left = width - d + (width & 1);
    _mm256_mask_storeu_epi16(to + d, left < W ? (__mmask16)((1u << left) - 1) : (__mmask16)0xffff, bits);
    square += (double)_mm512_reduce_add_ps(value * value);
    lost += (double)_mm512_reduce_add_ps(rest * rest);
  }
  *error = lost;
  return square;
}

template <int M>
void scan_tile(const uint32_t* rows, int64_t pairs, const float* panel, const float* norms, float* scores,
               int64_t stride, float* smallest) {
  __m512 sums[M][NV] = {};
  for (int64_t k = 0; k < pairs; ++k) {
    __m512bh c[NV];
    for (int v = 0; v < NV; ++v) c[v] = (__m512bh)_mm512_loadu_ps(panel + k * NR + v * W);
    for (int m = 0; m < M; ++m) {
      const __m512bh r = (__m512bh)_mm512_set1_epi32((int32_t)rows[m * pairs + k]);
      for (int v = 0; v < NV; ++v) sums[m][v] = _mm512_dpbf16_ps(sums[m][v], r, c[v]);
    }
  }
  for (int m = 0; m < M; ++m) {
    vf least = load(smallest + m * W);
    for (int v = 0; v < NV; ++v) {
      const vf score = load(norms + v * W) - (vf)sums[m][v];
      store(scores + m * stride + v * W, score);
      least = min(score, least);
    }
    store(smallest + m * W, least);
  }
}

// The first best of `count` candidates by score_tile's fp32 score, four sums at a time: one alone would wait for itself.
int32_t choose_exactly(const float* row, const float* codes, int64_t width, const float* norms,
                       const int32_t* candidates, int64_t count) {
  float best = INFINITY;
  int32_t chosen = 0;
  for (int64_t i = 0; i < count; i += 4) {
    const float* code[4];
    float sums[4] = {};
    for (int j = 0; j < 4; ++j) code[j] = codes + candidates[i + j < count ? i + j : i] * width;
    for (int64_t d = 0; d < width; ++d)
      for (int j = 0; j < 4; ++j) sums[j] = __builtin_fmaf(row[d], code[j][d], sums[j]);
    for (int j = 0; j < 4 && i + j < count; ++j) {
      const float score = norms[candidates[i + j]] - sums[j];
      if (score < best) {
        best = score;
        chosen = candidates[i + j];
      }
    }
  }
  return chosen;
}

int32_t choose_certified(const Work& work, int64_t q, const Bf16Book& book, const float* row, const float* scores,
                const float* smallest, double row_norm, double row_error, int32_t* candidates) {
  float least = smallest[0];
  for (int i = 1; i < W; ++i) least = smallest[i] < least ? smallest[i] : least;
  const double d = (double)work.width, product = row_norm * book.largest;
  const double error = row_error * book.largest + row_norm * book.largest_error + (2 * d + 16) * ROUNDING * product +
                       4 * ROUNDING * book.largest * book.largest + d * 1e-36;
  // A sum of two roundings up: the float threshold is never below the real one.
  const vf threshold = all(nextafterf((float)(least + 2.0001 * error), INFINITY));
  int64_t count = 0;
  const __m512i lane = (__m512i)lanes();
  for (int64_t v = 0; v < book.padded; v += NR) {
    const __mmask16 low = _mm512_cmp_ps_mask((__m512)load(scores + v), (__m512)threshold, _CMP_LE_OQ);
    const __mmask16 high = _mm512_cmp_ps_mask((__m512)load(scores + v + W), (__m512)threshold, _CMP_LE_OQ);
    if (__builtin_expect(low | high, 0)) {
      const __m512i code = _mm512_add_epi32(lane, _mm512_set1_epi32((int32_t)v));
      _mm512_storeu_si512(candidates + count, _mm512_maskz_compress_epi32(low, code));
      count += __builtin_popcount(low);
      _mm512_storeu_si512(candidates + count,
                          _mm512_maskz_compress_epi32(high, _mm512_add_epi32(code, _mm512_set1_epi32(W))));
      count += __builtin_popcount(high);
    }
  }
  if (count == 1 && least < INFINITY) return candidates[0];
  if (!count || !(least < INFINITY))  // values that are not finite: as fp32 has it
    for (count = 0; count < work.size; ++count) candidates[count] = (int32_t)count;
  return choose_exactly(row, work.level(q).codes, work.width, book.norms, candidates, count);
}

void search_bf16(const Work& work, int threads) {
  const int64_t panels = (work.size + NR - 1) / NR, pairs = (work.width + 1) / 2;
  const int64_t blocks = (work.rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
  Bf16Book book = {pairs, panels, panels * NR, nullptr, nullptr, 0, 0};
  book.packed = scratch(panels * (pairs * NR + NR));
  book.norms = book.packed + panels * pairs * NR;
  double* bounds = static_cast<double*>(malloc((size_t)panels * 2 * sizeof(double)));
#pragma omp parallel num_threads(threads)
  {
    // The fp32 panel is needed for its norms only: the same sums as in score_tile.
    float* memory = scratch(work.width * NR + NR * pairs + BLOCK_ROWS * (pairs + W + panels * NR) + (panels + 1) * NR);
    float* panel = memory;
    float* code_pairs = panel + work.width * NR;
    float* row_pairs = code_pairs + NR * pairs;
    float* smallest = row_pairs + BLOCK_ROWS * pairs;
    float* scores = smallest + BLOCK_ROWS * W;
    int32_t* candidates = reinterpret_cast<int32_t*>(scores + BLOCK_ROWS * panels * NR);
    for (int64_t q = 0; q < work.levels; ++q) {
      const Codebook codes = work.level(q);
#pragma omp for schedule(static)
      for (int64_t p = 0; p < panels; ++p) {
        pack_panel(codes, p, panel, book.norms + p * NR);
        double largest = 0, largest_error = 0;
        memset(code_pairs, 0, (size_t)(NR * pairs) * sizeof(float));
        for (int64_t i = 0; i < NR && p * NR + i < work.size; ++i) {
          double error;
          const double square = to_pairs(codes.codes + (p * NR + i) * work.width, work.width,
                                         reinterpret_cast<uint32_t*>(code_pairs + i * pairs), &error);
          largest = square > largest ? square : largest;
          largest_error = error > largest_error ? error : largest_error;
        }
        for (int v = 0; v < NV; ++v)
          transpose_rows(code_pairs + v * W * pairs, pairs, W, pairs, book.packed + p * pairs * NR + v * W, NR);
        bounds[2 * p] = largest;
        bounds[2 * p + 1] = largest_error;
      }
      Bf16Book level = book;
      for (int64_t p = 0; p < panels; ++p) {
        level.largest = bounds[2 * p] > level.largest ? bounds[2 * p] : level.largest;
        level.largest_error = bounds[2 * p + 1] > level.largest_error ? bounds[2 * p + 1] : level.largest_error;
      }
      level.largest = sqrt(level.largest) * 1.0001;
      level.largest_error = sqrt(level.largest_error) * 1.0001;
#pragma omp for schedule(dynamic)
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t start = b * BLOCK_ROWS;
        const int64_t count = work.rows - start < BLOCK_ROWS ? work.rows - start : BLOCK_ROWS;
        double norms[BLOCK_ROWS], errors[BLOCK_ROWS];
        for (int64_t row = 0; row < count; ++row) {
          norms[row] = sqrt(to_pairs(work.residual + (start + row) * work.width, work.width,
                                     reinterpret_cast<uint32_t*>(row_pairs + row * pairs), errors + row)) * 1.0001;
          errors[row] = sqrt(errors[row]) * 1.0001;
        }
        for (int64_t i = 0; i < count * W; ++i) smallest[i] = INFINITY;
        for (int64_t p = 0; p < panels; ++p)
          in_tiles(count, [&](auto height, int64_t row) {
            scan_tile<height.value>(reinterpret_cast<uint32_t*>(row_pairs + row * pairs), pairs,
                                    book.packed + p * pairs * NR, book.norms + p * NR,
                                    scores + row * book.padded + p * NR, book.padded, smallest + row * W);
          });
        for (int64_t row = 0; row < count; ++row) {
          const float* r = work.residual + (start + row) * work.width;
          work.choose(q, start + row, choose_certified(work, q, level, r, scores + row * book.padded, smallest + row * W,
                                              norms[row], errors[row], candidates));
        }
      }
    }
    free(memory);
  }
  free(bounds);
  free(book.packed);
}

}  // namespace
