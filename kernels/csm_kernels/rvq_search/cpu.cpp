// rvq_search on the CPU: exact fp32 scores, every sum over D in the same order for every row and code.
//
// Lanes are candidates: a panel of NR codes is held transposed, [D][NR], and a tile of MR rows meets it with one
// fused multiply-add per row, vector and d. The scores never leave the registers; what stays per row is the
// smallest score seen in each lane and its code. So a row's codes cannot depend on the batch, its split or the
// number of threads, and no N x V tensor exists.
//
// Few rows (a streamed frame): the threads share the candidates and transpose each panel where they meet it; at
// each level they exchange one (score, code) per row. Many rows: one packed copy of the level's codebook, and the
// threads share the rows.
#include "tile.h"
#if defined(__AVX512BF16__)
#include "bf16_search.h"
#endif

namespace {

constexpr int64_t FEW_ROWS = 192;   // up to here the threads share candidates instead of rows
constexpr int64_t NARROW = 8;       // columns of a row that stays in registers whole
constexpr int64_t BF16_WIDTH = 32;  // below, storing and reading bf16 scores costs more than the product saves

// Asks for the codes of panel p, which lie together: pack_panel reads many rows at once, more than a CPU foresees.
void prefetch_panel(const Codebook& book, int64_t p) {
  const float* from = book.codes + p * NR * book.width;
  const int64_t left = (book.size - p * NR) * book.width, whole = NR * book.width;
  for (int64_t i = 0; i < (left < whole ? left : whole); i += 16) __builtin_prefetch(from + i, 0, 2);
}

// Scores of M rows against a panel; a lane keeps its first smallest.
template <int M>
void score_tile(const float* rows, int64_t width, const float* panel, const float* norms, int32_t first, float* best,
                int32_t* index) {
  vf sums[M][NV] = {};
  for (int64_t d = 0; d < width; ++d) {
    vf c[NV];
    for (int v = 0; v < NV; ++v) c[v] = load(panel + d * NR + v * W);
    for (int m = 0; m < M; ++m) {
      const vf r = all(rows[m * width + d]);
      for (int v = 0; v < NV; ++v) sums[m][v] = fma(r, c[v], sums[m][v]);
    }
  }
  for (int v = 0; v < NV; ++v) {
    const vf norm = load(norms + v * W);
    const vi code = lanes() + (first + v * W);
    for (int m = 0; m < M; ++m) {
      float* b = best + m * NR + v * W;
      int32_t* i = index + m * NR + v * W;
      const vf score = norm - sums[m][v];
      const vf before = load(b);
      const vi closer = score < before;
      store(b, select(closer, score, before));
      store(i, select(closer, code, load(i)));
    }
  }
}

// All rows against one panel, in tiles of nearly equal height.
void score_rows(const float* rows, int64_t count, int64_t width, const float* panel, const float* norms, int32_t first,
                float* best, int32_t* index) {
  in_tiles(count, [&](auto height, int64_t row) {
    score_tile<height.value>(rows + row * width, width, panel, norms, first, best + row * NR, index + row * NR);
  });
}

void forget(int64_t rows, float* best, int32_t* index) {
  for (int64_t i = 0; i < rows * NR; ++i) {
    best[i] = INFINITY;
    index[i] = 0;
  }
}

// The smallest of NR lanes; of equal scores the lowest code.
void reduce(const float* best, const int32_t* index, float* score, int32_t* code) {
  float s = best[0];
  int32_t c = index[0];
  for (int i = 1; i < NR; ++i)
    if (best[i] < s || (best[i] == s && index[i] < c)) {
      s = best[i];
      c = index[i];
    }
  *score = s;
  *code = c;
}

void search_few(const Work& work, int threads) {
  const int64_t panels = (work.size + NR - 1) / NR, n = work.rows;
  if (threads > panels) threads = (int)panels;
  // Two sets, so that a thread may write the next level's while another still reads this level's.
  float* scores = scratch(2 * threads * n);
  float* found = scratch(2 * threads * n);
  int32_t* choices = reinterpret_cast<int32_t*>(found);
#pragma omp parallel num_threads(threads)
  {
    const int team = omp_get_num_threads(), me = omp_get_thread_num();
    const int64_t begin = panels * me / team, end = panels * (me + 1) / team;
    float* mine = scratch(n * work.width + work.width * NR + NR + 2 * n * NR);
    float* panel = mine + n * work.width;
    float* norms = panel + work.width * NR;
    float* best = norms + NR;
    int32_t* index = reinterpret_cast<int32_t*>(best + n * NR);
    memcpy(mine, work.residual, (size_t)(n * work.width) * sizeof(float));
    for (int64_t q = 0; q < work.levels; ++q) {
      const Codebook book = work.level(q);
      forget(n, best, index);
      for (int64_t p = begin; p < end; ++p) {
        if (p + 1 < end)
          prefetch_panel(book, p + 1);
        else if (q + 1 < work.levels)
          prefetch_panel(work.level(q + 1), begin);
        pack_panel(book, p, panel, norms);
        score_rows(mine, n, work.width, panel, norms, (int32_t)(p * NR), best, index);
      }
      const int64_t set = (q & 1) * team * n;
      for (int64_t row = 0; row < n; ++row)
        reduce(best + row * NR, index + row * NR, scores + set + me * n + row, choices + set + me * n + row);
#pragma omp barrier
      // Every thread merges all: cheaper than a second barrier. Lower threads hold lower codes.
      for (int64_t row = 0; row < n; ++row) {
        float s = scores[set + row];
        int32_t c = choices[set + row];
        for (int t = 1; t < team; ++t) {
          const float other = scores[set + t * n + row];
          if (other < s) {
            s = other;
            c = choices[set + t * n + row];
          }
        }
        const float* code = book.codes + c * work.width;
        if (row % team == me) work.choose(q, row, c);
        for (int64_t d = 0; d < work.width; ++d) mine[row * work.width + d] -= code[d];
      }
    }
    free(mine);
  }
  free(scores);
  free(found);
}

void search_many(const Work& work, int threads) {
  const int64_t panels = (work.size + NR - 1) / NR, panel_size = work.width * NR;
  const int64_t blocks = (work.rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
  float* packed = scratch(panels * (panel_size + NR));
  float* norms = packed + panels * panel_size;
#pragma omp parallel num_threads(threads)
  {
    float* best = scratch(2 * BLOCK_ROWS * NR);
    int32_t* index = reinterpret_cast<int32_t*>(best + BLOCK_ROWS * NR);
    for (int64_t q = 0; q < work.levels; ++q) {
      const Codebook book = work.level(q);
#pragma omp for schedule(static)
      for (int64_t p = 0; p < panels; ++p) pack_panel(book, p, packed + p * panel_size, norms + p * NR);
#pragma omp for schedule(dynamic)
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t start = b * BLOCK_ROWS;
        const int64_t count = work.rows - start < BLOCK_ROWS ? work.rows - start : BLOCK_ROWS;
        forget(count, best, index);
        for (int64_t p = 0; p < panels; ++p)
          score_rows(work.residual + start * work.width, count, work.width, packed + p * panel_size, norms + p * NR,
                     (int32_t)(p * NR), best, index);
        for (int64_t row = 0; row < count; ++row) {
          float score;
          int32_t code;
          reduce(best + row * NR, index + row * NR, &score, &code);
          work.choose(q, start + row, code);
        }
      }
    }
    free(best);
  }
  free(packed);
}

// Narrow rows: lanes are rows, and every code meets them from memory. score_tile would spend more on its smallest
// scores than on the products.
constexpr int ROW_VECTORS = W == 16 ? 2 : 1;  // as many as leave room for NARROW columns in registers
constexpr int ROW_LANES = ROW_VECTORS * W;

// The first best code for ROW_LANES rows, given as columns [NARROW][ROW_LANES]; codes are [V, NARROW].
void nearest_narrow(const float* columns, const float* codes, const float* norms, int64_t size, int32_t* found) {
  vf x[ROW_VECTORS][NARROW], best[ROW_VECTORS];
  vi index[ROW_VECTORS];
  for (int v = 0; v < ROW_VECTORS; ++v) {
    for (int d = 0; d < NARROW; ++d) x[v][d] = load(columns + d * ROW_LANES + v * W);
    best[v] = all(INFINITY);
    index[v] = vi{};
  }
  for (int64_t code = 0; code < size; ++code) {
    const float* c = codes + code * NARROW;
    for (int v = 0; v < ROW_VECTORS; ++v) {
      vf sum = {};
      for (int d = 0; d < NARROW; ++d) sum = fma(x[v][d], all(c[d]), sum);
      const vf score = norms[code] - sum;
      const vi closer = score < best[v];
      best[v] = select(closer, score, best[v]);
      index[v] = select(closer, all((int32_t)code), index[v]);
    }
  }
  for (int v = 0; v < ROW_VECTORS; ++v) store(found + v * W, index[v]);
}

void search_narrow(const Work& work, int threads) {
  const int64_t blocks = (work.rows + ROW_LANES - 1) / ROW_LANES;
  float* codes = scratch(work.size * (NARROW + 1));
  float* norms = codes + work.size * NARROW;
#pragma omp parallel num_threads(threads)
  {
    float* columns = scratch(NARROW * ROW_LANES);
    for (int64_t i = 0; i < NARROW * ROW_LANES; ++i) columns[i] = 0;
    int32_t found[ROW_LANES];
    for (int64_t q = 0; q < work.levels; ++q) {
      const float* table = work.level(q).codes;
#pragma omp for schedule(static)
      for (int64_t v = 0; v < work.size; ++v) {
        vf one = {};  // a lane of pack_panel's sum: the same operations, the same bits
        float* to = codes + v * NARROW;
        for (int64_t d = 0; d < NARROW; ++d) {
          to[d] = d < work.width ? table[v * work.width + d] : 0.0f;
          one = fma(all(to[d]), all(to[d]), one);
        }
        norms[v] = one[0] * 0.5f;
      }
#pragma omp for schedule(dynamic, 8)
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t start = b * ROW_LANES, left = work.rows - start;
        const float* rows = work.residual + start * work.width;
        for (int v = 0; v < ROW_VECTORS && v * W < left; ++v)
          transpose_rows(rows + v * W * work.width, work.width, left - v * W < W ? (int)(left - v * W) : W, work.width,
                         columns + v * W, ROW_LANES);
        nearest_narrow(columns, codes, norms, work.size, found);
        for (int64_t row = 0; row < ROW_LANES && row < left; ++row) work.choose(q, start + row, found[row]);
      }
    }
    free(columns);
  }
  free(codes);
}

}  // namespace

CSM_EXPORT(rvq_search)(const float* codebooks, int64_t rows, int64_t size, int64_t width, int64_t levels, int64_t threads,
                       int64_t* codes, float* quantized, float* residual, double* squares) {
  const Work work = {codebooks, rows, size, width, levels, codes, quantized, residual, squares};
  if (rows <= FEW_ROWS) return search_few(work, (int)threads);
  if (width <= NARROW) return search_narrow(work, (int)threads);
#if defined(__AVX512BF16__)
  if (width >= BF16_WIDTH) return search_bf16(work, (int)threads);
#endif
  search_many(work, (int)threads);
}
