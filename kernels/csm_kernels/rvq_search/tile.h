// What both searches of many rows share: codebooks as panels, and the update of a row once its code is chosen.
#pragma once

#include "../simd.h"

namespace {

constexpr int64_t BLOCK_ROWS = 48;  // rows of one task: their best scores (12 kB) and a panel fit a first-level cache

struct Codebook {
  const float* codes;  // [V, D]
  int64_t size, width;
};

// Panel p of a codebook as [D][NR], and 0.5 |c|^2 of its codes; places beyond V get an infinite norm.
void pack_panel(const Codebook& book, int64_t p, float* panel, float* norms) {
  const int64_t first = p * NR;
  for (int v = 0; v < NV; ++v) {
    const int64_t start = first + v * W;
    const int64_t left = book.size - start;
    const int rows = left <= 0 ? 0 : left < W ? (int)left : W;
    transpose_rows(book.codes + (rows ? start : 0) * book.width, book.width, rows, book.width, panel + v * W, NR);
    vf square = {};
    for (int64_t d = 0; d < book.width; ++d) {
      const vf c = load(panel + d * NR + v * W);
      square = fma(c, c, square);
    }
    vf half = square * 0.5f;
    for (int r = rows; r < W; ++r) half[r] = INFINITY;
    store(norms + v * W, half);
  }
}

// Subtracts the chosen code from a row; returns the squared norm of the residual, summed in one order on every CPU.
double subtract(const float* code, int64_t width, float* residual, float* quantized) {
  double sums[8] = {};
  int64_t d = 0;
  for (; d + 8 <= width; d += 8)
    for (int i = 0; i < 8; ++i) {
      const float c = code[d + i], r = residual[d + i] - c;
      residual[d + i] = r;
      if (quantized) quantized[d + i] += c;
      sums[i] += (double)r * r;
    }
  for (int i = 0; d < width; ++d, ++i) {
    const float c = code[d], r = residual[d] - c;
    residual[d] = r;
    if (quantized) quantized[d] += c;
    sums[i] += (double)r * r;
  }
  return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

struct Work {
  const float* codebooks;  // [Q, V, D]
  int64_t rows, size, width, levels;
  int64_t* codes;     // [N, Q]
  float* quantized;   // [N, D], zero at the start
  float* residual;    // [N, D], x at the start
  double* squares;    // [N, Q]

  Codebook level(int64_t q) const { return {codebooks + q * size * width, size, width}; }

  void choose(int64_t q, int64_t row, int32_t code) const {
    codes[row * levels + q] = code;
    squares[row * levels + q] = subtract(level(q).codes + code * width, width, residual + row * width,
                                         quantized + row * width);
  }
};

}  // namespace
