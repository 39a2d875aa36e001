// ema_update on the CPU; reference.py says what is computed, message.py what the integers mean.
//
// Threads share the columns: each adds its own columns of every row, so no two write the same sum and nothing is
// added twice or in a race. The sums are integers, so their order is free.
#include "../simd.h"

namespace {

constexpr int64_t COLUMNS = 16;  // a cache line of fp32: threads never share one
constexpr int FRACTION_BITS = 22, VALUE_BITS = 42;
constexpr double ROUNDING = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer, ties to even

uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}
constexpr uint64_t GOLDEN = 0x9E3779B97F4A7C15ull;

int fixed_point_exponent(const float* codebook, int64_t count) {
  float largest[16] = {};
  int64_t i = 0;
  for (; i + 16 <= count; i += 16)
    for (int j = 0; j < 16; ++j) {
      const float c = fabsf(codebook[i + j]);
      largest[j] = c > largest[j] ? c : largest[j];
    }
  for (; i < count; ++i) largest[0] = fabsf(codebook[i]) > largest[0] ? fabsf(codebook[i]) : largest[0];
  float most = 0;
  for (int j = 0; j < 16; ++j) most = largest[j] > most ? largest[j] : most;
  int exponent = 0;
  frexpf(most, &exponent);
  return FRACTION_BITS - (exponent < -60 ? -60 : exponent > 60 ? 60 : exponent);
}

// Half a vector of fp32 becomes a whole one of doubles, whose bits are then read as integers.
constexpr int HALF = W / 2;
typedef float vh __attribute__((vector_size(4 * HALF), aligned(4), may_alias));
typedef double vd __attribute__((vector_size(8 * HALF), aligned(8), may_alias));
typedef int64_t vl __attribute__((vector_size(8 * HALF), aligned(8), may_alias));

// Adds HALF residuals of a row, in fixed point, to its code's sums and takes the code off.
CSM_INLINE void add(float* residual, const float* code, float scale, int64_t* sums) {
  vh& r = *reinterpret_cast<vh*>(residual);
  const vh limit = 4398046511104.0f - vh{};
  static_assert(VALUE_BITS == 42, "limit is 2^VALUE_BITS");
  vh value = r * scale;
  value = value > limit ? limit : value;
  value = value < -limit ? -limit : value;
  const vd zero = ROUNDING - vd{};
  const vd rounded = __builtin_convertvector(value, vd) + zero;
  *reinterpret_cast<vl*>(sums) += (vl)rounded - (vl)zero;
  r -= *reinterpret_cast<const vh*>(code);
}

// The same for `columns` <= COLUMNS of them.
CSM_INLINE void add_columns(float* residual, const float* code, float scale, int64_t columns, int64_t* sums) {
  if (columns == COLUMNS) {
    for (int d = 0; d < COLUMNS; d += HALF) add(residual + d, code + d, scale, sums + d);
    return;
  }
  float r[COLUMNS] = {}, c[COLUMNS] = {};
  int64_t total[COLUMNS] = {};
  memcpy(r, residual, (size_t)columns * 4);
  memcpy(c, code, (size_t)columns * 4);
  for (int d = 0; d < COLUMNS; d += HALF) add(r + d, c + d, scale, total + d);
  memcpy(residual, r, (size_t)columns * 4);
  for (int64_t d = 0; d < columns; ++d) sums[d] += total[d];
}

struct Draw {
  int64_t number;
  int64_t row;
};

bool before(const Draw& a, const Draw& b) { return a.number > b.number || (a.number == b.number && a.row < b.row); }

// Keeps the first `most` of a growing list in order; the list is short and hardly ever changes.
void keep_best(Draw* kept, int64_t* count, int64_t most, Draw draw) {
  if (*count == most && !before(draw, kept[most - 1])) return;
  int64_t place = *count < most ? (*count)++ : most - 1;
  for (; place > 0 && before(draw, kept[place - 1]); --place) kept[place] = kept[place - 1];
  kept[place] = draw;
}

}  // namespace

// One rank's counts [Q, V], sums [Q, V, D], priorities [Q, S] and candidates [Q, S, ceil(D/2)] int64, all zero (the
// priorities -1) at the start. residual [N, D] is x and is used up; winners [Q, S] is scratch.
CSM_EXPORT(ema_statistics)(const int64_t* codes, const float* codebooks, const int64_t* row_levels, int64_t step,
                           int64_t rows, int64_t size, int64_t width, int64_t levels, int64_t slots, int64_t threads,
                           float* residual, uint64_t* fingerprints, int64_t* winners, int64_t* counts, int64_t* sums,
                           int64_t* priorities, int64_t* candidates) {
  const int64_t packed = (width + 1) / 2, strips = (width + COLUMNS - 1) / COLUMNS;
  const int64_t found = slots < rows ? slots : rows;
  float* scales = scratch(levels);
  uint64_t* keys = static_cast<uint64_t*>(malloc((size_t)width * sizeof(uint64_t)));
  for (int64_t d = 0; d < width; ++d) keys[d] = mix((uint64_t)(d + 1) * GOLDEN) | 1;
#pragma omp parallel num_threads((int)threads)
  {
    if (found) {
#pragma omp for schedule(static)
      for (int64_t n = 0; n < rows; ++n) {
        uint64_t fingerprint = 0;
        for (int64_t d = 0; d < width; ++d) {
          int32_t bits;
          memcpy(&bits, residual + n * width + d, 4);
          fingerprint += (uint64_t)(int64_t)bits * keys[d];
        }
        fingerprints[n] = fingerprint;
      }
    }
    Draw* kept = static_cast<Draw*>(malloc((size_t)(slots + 1) * sizeof(Draw)));
#pragma omp for schedule(dynamic)
    for (int64_t q = 0; q < levels; ++q) {
      scales[q] = ldexpf(1.0f, fixed_point_exponent(codebooks + q * size * width, size * width));
      if (!found) continue;
      int64_t count = 0;
      const uint64_t round = mix((uint64_t)step * GOLDEN + (uint64_t)q);
      for (int64_t n = 0; n < rows; ++n) {
        const bool active = row_levels[n] > q;
        keep_best(kept, &count, found, {active ? (int64_t)(mix(fingerprints[n] ^ round) & ((1ull << 62) - 1)) : -1, n});
      }
      for (int64_t s = 0; s < found; ++s) {
        priorities[q * slots + s] = kept[s].number;
        winners[q * slots + s] = kept[s].row;
      }
    }
    free(kept);
#pragma omp for schedule(static)
    for (int64_t strip = 0; strip < strips; ++strip) {
      const int64_t begin = strip * COLUMNS;
      const int64_t columns = width - begin < COLUMNS ? width - begin : COLUMNS;
      for (int64_t q = 0; q < levels; ++q) {
        const float scale = scales[q];
        // The lower half of a packed integer is the even column: the bytes are simply the row's.
        for (int64_t s = 0; s < found; ++s) {
          char* row = reinterpret_cast<char*>(candidates + (q * slots + s) * packed);
          memcpy(row + begin * 4, residual + winners[q * slots + s] * width + begin, (size_t)columns * 4);
        }
        for (int64_t n = 0; n < rows; ++n) {
          if (row_levels[n] <= q) continue;
          const int64_t code = codes[n * levels + q];
          if (strip == 0) counts[q * size + code] += 1;
          float* r = residual + n * width + begin;
          const float* c = codebooks + (q * size + code) * width + begin;
          int64_t* total = sums + (q * size + code) * width + begin;
          add_columns(r, c, scale, columns, total);
        }
      }
    }
  }
  free(keys);
  free(scales);
}

// Moves codebooks, usage and vector_sum by the summed message; see reference.apply. new_usage [Q, V] is scratch.
CSM_EXPORT(ema_apply)(const int64_t* counts, const int64_t* sums, const int64_t* priorities, const int64_t* candidates,
                      int64_t ranks, int64_t slots, int64_t size, int64_t width, int64_t levels, double decay,
                      double epsilon, double revive_below, int64_t threads, float* codebooks, float* usage,
                      float* vector_sum) {
  const int64_t packed = (width + 1) / 2;
  const float keep = (float)decay, take = (float)(1 - decay);
#pragma omp parallel num_threads((int)threads)
  {
    float* use = scratch(size);
    int64_t* revived = static_cast<int64_t*>(malloc((size_t)size * sizeof(int64_t)));
    Draw* kept = static_cast<Draw*>(malloc((size_t)(slots + 1) * sizeof(Draw)));
#pragma omp for schedule(dynamic)
    for (int64_t q = 0; q < levels; ++q) {
      int64_t reached = 0;
      for (int64_t v = 0; v < size; ++v) reached += counts[q * size + v];
      if (!reached) continue;
      float* codebook = codebooks + q * size * width;
      const double unit = ldexp(1.0, -fixed_point_exponent(codebook, size * width));

      double total = 0;
      for (int64_t v = 0; v < size; ++v) {
        use[v] = usage[q * size + v] * keep + (float)counts[q * size + v] * take;
        total += use[v];
      }
      const double uniform = total / (double)size;
      const float threshold = (float)(revive_below * uniform), revived_use = (float)(2 * revive_below * uniform);

      // The best draws of all ranks; equal draws are equal rows and count once.
      int64_t drawn = 0, distinct = 0;
      for (int64_t w = 0; w < ranks; ++w)
        for (int64_t s = 0; s < slots; ++s)
          keep_best(kept, &drawn, slots, {priorities[(w * levels + q) * slots + s], w * slots + s});
      for (int64_t s = 0; s < drawn; ++s)
        if (kept[s].number >= 0 && (s == 0 || kept[s].number != kept[s - 1].number)) kept[distinct++] = kept[s];
      int64_t turn = 0;
      total = 0;
      for (int64_t v = 0; v < size; ++v) {
        const bool dead = use[v] < threshold && turn < distinct;
        revived[v] = dead ? kept[turn++].row : -1;
        if (dead) use[v] = revived_use;
        total += use[v];
      }

      const float smoothing = (float)epsilon, whole = (float)total;
      const float denominator = (float)(total + (double)size * epsilon);
      for (int64_t v = 0; v < size; ++v) {
        const int64_t at = q * size + v;
        const float smoothed = (use[v] + smoothing) / denominator * whole;
        const float* row = nullptr;
        if (revived[v] >= 0) {
          const int64_t w = revived[v] / slots, s = revived[v] % slots;
          row = reinterpret_cast<const float*>(candidates + ((w * levels + q) * slots + s) * packed);
        }
        float* vector = vector_sum + at * width;
        for (int64_t d = 0; d < width; ++d) {
          const float summed = (float)((double)sums[at * width + d] * unit);
          const float moved = row ? row[d] * revived_use : vector[d] * keep + summed * take;
          vector[d] = moved;
          codebook[v * width + d] = row ? row[d] : moved / smoothed;
        }
        usage[at] = use[v];
      }
    }
    free(kept);
    free(revived);
    free(use);
  }
}
