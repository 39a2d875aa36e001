// interpolated_attention on the CPU: keys are resampled without being formed.
//
// Between two keys the logits of the resampled positions lie on a line, s_i + w (s_i+1 - s_i) with w rising by
// h = Tk / L, so their exponentials are a geometric sequence. A run (the n positions between two keys) therefore needs
// two exponentials and the sums P, U, V of r^t, t r^t, t^2 r^t, whatever n is; they give the moments of the run's
// exponentials p, Z0 = sum p, Z1 = sum p w, Z2 = sum p w^2, and with them value i counts Z0_i - Z1_i + Z1_i-1 times.
// The sequence starts at its larger end: no sum is lost below the smallest float, and every term is positive.
// Where L < 2 Tk, runs hold one position or none: there each position is a run of its own, of a key made by two taps.
//
// Lanes are queries, in tiles of NR; everything else is small matrix products with one shape of inner loop.
#include "../simd.h"

namespace {

constexpr int64_t CHUNK = 128;      // runs whose logits are held at a time: 16 kB
constexpr int64_t BLOCK = 8 * NR;   // queries of one forward task
constexpr int64_t SLICE = 32;
constexpr int64_t HORNER = 8;       // longest run summed term by term; longer ones by doubling

// c [M, NR] = or += sum over k < n of a(m, k) b[k bk + lane], a(m, k) being a[m as + k] or, ACROSS, a[k as + m].
template <int M, bool ACROSS>
void product_tile(const float* a, int64_t as, const float* b, int64_t bk, int64_t n, float* c, int64_t cm, bool add) {
  vf sums[M][NV] = {};
  for (int64_t k = 0; k < n; ++k) {
    vf right[NV];
    for (int v = 0; v < NV; ++v) right[v] = load(b + k * bk + v * W);
    for (int m = 0; m < M; ++m) {
      const vf left = all(ACROSS ? a[k * as + m] : a[m * as + k]);
      for (int v = 0; v < NV; ++v) sums[m][v] = fma(left, right[v], sums[m][v]);
    }
  }
  // Added at the end, not started from: one rounding at the size of c instead of n.
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < NV; ++v) {
      float* to = c + m * cm + v * W;
      store(to, add ? load(to) + sums[m][v] : sums[m][v]);
    }
}

template <bool ACROSS>
void product(int64_t rows, const float* a, int64_t as, const float* b, int64_t bk, int64_t n, float* c, int64_t cm,
             bool add) {
  in_tiles(rows, [&](auto height, int64_t row) {
    product_tile<height.value, ACROSS>(a + row * (ACROSS ? 1 : as), as, b, bk, n, c + row * cm, cm, add);
  });
}

// Logits: sums over SLICE numbers are added up, so that a logit of 500 is not rounded at that size d times.
void logits_of(int64_t rows, const float* keys, int64_t stride, const float* columns, int64_t d, float* logits) {
  for (int64_t i = 0; i < d; i += SLICE)
    product<false>(rows, keys + i, stride, columns + i * NR, NR, d - i < SLICE ? d - i : SLICE, logits, NR, i > 0);
}

int64_t clamp(int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; }
int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

struct Sequence {
  int64_t q0, queries, k0, keys, length, offset;

  bool empty() const { return !queries || !keys || !length; }
  // Each position a run of its own, instead of each key.
  bool direct() const { return length < 2 * keys; }
  int64_t runs() const { return direct() ? length : keys; }
  // 2 L times the place of a position among the keys; below 0 and above keys - 1 the ends are held.
  int64_t place(int64_t position) const { return (2 * position + 1) * keys - length; }
  int64_t key_of(int64_t position) const { return clamp(floor_div(place(position), 2 * length), 0, keys - 1); }
  float weight(int64_t position, int64_t key) const {
    const int64_t beyond = place(position) - 2 * length * key;
    return key == keys - 1 || beyond < 0 ? 0.0f : (float)beyond / (float)(2 * length);
  }
  // The first position at or after key i; key 0 also has `first(0)` positions before it, held at its value.
  int64_t first(int64_t key) const {
    if (key >= keys) return length;
    return clamp(-floor_div(-(2 * length * key + length - keys), 2 * keys), 0, length);
  }
};

// Where a run's positions begin, how many they are, the weight of the first and from one to the next: divisions, so
// done once a task. After the last key the weight stays 0.
struct Run {
  int32_t start, count;
  float weight, step;
};

struct Batch {
  const int64_t *bounds_q, *bounds_k, *lengths, *offsets;
  int64_t heads, width, window;  // window < 0: none
  float scale;

  Sequence sequence(int64_t s) const {
    return {bounds_q[s], bounds_q[s + 1] - bounds_q[s], bounds_k[s], bounds_k[s + 1] - bounds_k[s], lengths[s],
            offsets[s]};
  }
  int64_t padded() const { return (width + NR - 1) / NR * NR; }
  int64_t row(int64_t place, int64_t head) const { return (place * heads + head) * width; }
};

// The rows that queries meet, [runs, padded]: keys, or the resampled ones where each position is a run.
void gather(const Batch& batch, const Sequence& seq, int64_t head, const float* t, float* rows) {
  const int64_t d = batch.width, stride = batch.padded();
  for (int64_t r = 0; r < seq.runs(); ++r) {
    float* to = rows + r * stride;
    for (int64_t i = d; i < stride; ++i) to[i] = 0;
    if (!seq.direct()) {
      memcpy(to, t + batch.row(seq.k0 + r, head), (size_t)d * sizeof(float));
      continue;
    }
    const int64_t key = seq.key_of(r);
    const float w = seq.weight(r, key);
    const float* left = t + batch.row(seq.k0 + key, head);
    const float* right = t + batch.row(seq.k0 + clamp(key + 1, 0, seq.keys - 1), head);
    for (int64_t i = 0; i < d; ++i) to[i] = left[i] + w * (right[i] - left[i]);
  }
}

// The transpose of gather: what reached the rows goes to the keys of one head.
void scatter(const Batch& batch, const Sequence& seq, int64_t head, const float* rows, float* t) {
  const int64_t d = batch.width, stride = batch.padded();
  if (!seq.direct()) {
    for (int64_t r = 0; r < seq.keys; ++r)
      memcpy(t + batch.row(seq.k0 + r, head), rows + r * stride, (size_t)d * sizeof(float));
    return;
  }
  for (int64_t key = 0; key < seq.keys; ++key)
    memset(t + batch.row(seq.k0 + key, head), 0, (size_t)d * sizeof(float));
  for (int64_t r = 0; r < seq.runs(); ++r) {
    const int64_t key = seq.key_of(r);
    const float w = seq.weight(r, key);
    const float* from = rows + r * stride;
    float* left = t + batch.row(seq.k0 + key, head);
    float* right = t + batch.row(seq.k0 + clamp(key + 1, 0, seq.keys - 1), head);
    for (int64_t i = 0; i < d; ++i) {
      const float to_right = w * from[i];
      left[i] += from[i] - to_right;
      right[i] += to_right;
    }
  }
}

void find_runs(const Sequence& seq, Run* runs) {
  for (int64_t r = 0; r < seq.runs(); ++r) {
    if (seq.direct()) {
      runs[r] = {(int32_t)r, 1, 0, 0};
      continue;
    }
    const int64_t start = seq.first(r), count = seq.first(r + 1) - start;
    const float step = r == seq.keys - 1 ? 0 : (float)seq.keys / (float)seq.length;
    runs[r] = {(int32_t)start, (int32_t)count, count ? seq.weight(start, r) : 0, step};
  }
}

// NR rows of queries (or their gradient) times a factor: as columns [width][NR], and as rows [NR][padded] if wanted.
void take_queries(const Batch& batch, const Sequence& seq, int64_t head, int64_t first, int64_t count, const float* t,
                  float factor, float* rows, float* columns) {
  const int64_t d = batch.width, stride = batch.padded();
  for (int64_t i = 0; i < NR; ++i) {
    const float* from = t + (i < count ? batch.row(seq.q0 + first + i, head) : 0);
    float* to = rows + i * stride;
    for (int64_t c = 0; c < d; ++c) to[c] = i < count ? from[c] * factor : 0;
    for (int64_t c = d; c < stride; ++c) to[c] = 0;
  }
  for (int v = 0; v < NV; ++v) transpose_rows(rows + v * W * stride, stride, W, d, columns + v * W, NR);
}

struct Sums {
  vf p, u, v;  // of r^t, t r^t, t^2 r^t
};

// Over t < n, the same n for all lanes; r = e^exponent.
template <bool SQUARES>
CSM_INLINE Sums geometric(vf exponent, int64_t n) {
  vf p = all(1.0f);
  if (n <= HORNER) {
    const vf r = exp_negative(exponent);
    vf slope = {}, bend = {};  // the polynomial p(r), its first derivative and half its second
    for (int64_t k = 1; k < n; ++k) {
      if (SQUARES) bend = fma(bend, r, slope);
      slope = fma(slope, r, p);
      p = fma(p, r, all(1.0f));
    }
    const vf u = r * slope;
    return {p, u, SQUARES ? fma(r * r * 2.0f, bend, u) : vf{}};
  }
  // With m terms summed, fall = 1 - r^m: near r = 1 the power itself would lose a digit at every doubling.
  const vf fall_of_one = one_minus_exp(exponent);
  vf u = {}, v = {}, fall = fall_of_one;
  float m = 1;
  for (int bit = 62 - __builtin_clzll((uint64_t)n); bit >= 0; --bit) {
    const vf power = 1.0f - fall, twice = 2.0f - fall;
    if (SQUARES) v = fma(v, twice, power * fma(u, all(2 * m), p * (m * m)));
    u = fma(u, twice, power * p * m);
    p *= twice;
    fall *= twice;
    m *= 2;
    if (n >> bit & 1) {
      const vf next = 1.0f - fall;
      if (SQUARES) v = fma(next, all(m * m), v);
      u = fma(next, all(m), u);
      p += next;
      fall = fma(next, fall_of_one, fall);
      m += 1;
    }
  }
  return {p, u, v};
}

// Over t < n of each lane.
template <bool SQUARES>
CSM_INLINE Sums geometric(vf exponent, vi n, int64_t most) {
  if (most > HORNER) {
    const vf fall_of_one = one_minus_exp(exponent);
    vf p = {}, u = {}, v = {}, fall = {}, m = {};
    for (int bit = 63 - __builtin_clzll((uint64_t)most); bit >= 0; --bit) {
      const vf power = 1.0f - fall, twice = 2.0f - fall;
      if (SQUARES) v = fma(v, twice, power * fma(u, m * 2.0f, p * m * m));
      u = fma(u, twice, power * p * m);
      p *= twice;
      fall *= twice;
      m *= 2.0f;
      const vi odd = ((n >> bit) & 1) > 0;
      const vf next = 1.0f - fall;
      if (SQUARES) v = select(odd, fma(next, m * m, v), v);
      u = select(odd, fma(next, m, u), u);
      p = select(odd, p + next, p);
      fall = select(odd, fma(next, fall_of_one, fall), fall);
      m = select(odd, m + 1.0f, m);
    }
    return {p, u, v};
  }
  const vf r = exp_negative(exponent);
  vf p = all(1.0f), slope = {}, bend = {};
  for (int64_t k = 1; k < most; ++k) {
    const vi more = n > (int32_t)k;
    if (SQUARES) bend = select(more, fma(bend, r, slope), bend);
    slope = select(more, fma(slope, r, p), slope);
    p = select(more, fma(p, r, all(1.0f)), p);
  }
  const vf u = r * slope;
  return {p, u, SQUARES ? fma(r * r * 2.0f, bend, u) : vf{}};
}

constexpr float NOTHING = -3.0e38f;  // a logit below every real one; finite, so that differences stay numbers

// A run as one vector of queries sees it.
struct View {
  vi count;        // positions in the window; all lanes the same without one
  vf first, last;  // weights of its ends
};

template <bool WINDOW>
CSM_INLINE View look(const Run& run, vi position, int64_t window) {
  const int32_t final = run.count - 1;
  if (!WINDOW) return {all(run.count), all(run.weight), all(run.weight + (float)final * run.step)};
  const vi low = position - (int32_t)(window + run.start), high = position + (int32_t)(window - run.start);
  const vi begin = select(low > 0, low, vi{}), end = select(high < final, high, all(final));
  const vf first = fma(to_float(begin), all(run.step), all(run.weight));
  const vf last = fma(to_float(end), all(run.step), all(run.weight));
  return {end - begin + 1, first, last};
}

// What one tile of queries meets of one sequence: runs [begin, end), of which a chunk [r0, r1) at a time.
struct Tile {
  const Batch* batch;
  const Sequence* seq;
  const Run* runs;
  int64_t first, count, begin, end;

  int64_t chunk_end(int64_t r0) const { return end < r0 + CHUNK ? end : r0 + CHUNK; }
  // A run ends at the next key: a chunk's rows are its runs' and one more.
  int64_t rows(int64_t r0) const {
    return chunk_end(r0) - r0 + (!seq->direct() && chunk_end(r0) < seq->keys);
  }
  vi position(int v) const { return lanes() + (int32_t)(seq->offset + first + v * W); }
};

Tile tile_of(const Batch& batch, const Sequence& seq, const Run* runs, int64_t first) {
  const int64_t count = seq.queries - first < NR ? seq.queries - first : NR;
  Tile tile = {&batch, &seq, runs, first, count, 0, seq.runs()};
  if (batch.window >= 0) {
    const int64_t low = seq.offset + first - batch.window, high = seq.offset + first + count - 1 + batch.window;
    if (low >= seq.length || high < 0) {
      tile.end = 0;
    } else if (seq.direct()) {
      tile.begin = clamp(low, 0, seq.length);
      tile.end = clamp(high + 1, 0, seq.length);
    } else {
      tile.begin = seq.key_of(clamp(low, 0, seq.length - 1));
      tile.end = seq.key_of(clamp(high, 0, seq.length - 1)) + 1;
    }
  }
  return tile;
}

template <bool WINDOW>
CSM_INLINE vi held_count(const Tile& tile, int v) {
  const int64_t n = tile.seq->direct() || tile.begin > 0 ? 0 : tile.seq->first(0);
  if (!n) return vi{};
  const View view = look<WINDOW>({0, (int32_t)n, 0, 0}, tile.position(v), tile.batch->window);
  return select(view.count > 0, view.count, vi{});
}

// Raises the maximum over the runs [r0, r1), whose keys' logits are rows of `logits`.
template <bool WINDOW>
void raise_maximum(const Tile& tile, int64_t r0, int64_t r1, const float* logits, float* maximum) {
  const Sequence& seq = *tile.seq;
  const int64_t following = seq.direct() ? 0 : NR;
  for (int v = 0; v < NV; ++v) {
    const vi position = tile.position(v);
    vf most = load(maximum + v * W);
    for (int64_t r = r0; r < r1; ++r) {
      const Run run = tile.runs[r];
      const float* at = logits + (r - r0) * NR + v * W;
      const vf s = load(at), slope = r == seq.keys - 1 ? vf{} : load(at + following) - s;
      if (run.count) {
        const View view = look<WINDOW>(run, position, tile.batch->window);
        const vf larger = max(fma(slope, view.first, s), fma(slope, view.last, s));
        most = max(most, WINDOW ? select(view.count > 0, larger, all(NOTHING)) : larger);
      }
      if (r == 0) most = max(most, select(held_count<WINDOW>(tile, v) > 0, s, all(NOTHING)));
    }
    store(maximum + v * W, most);
  }
}

// Z0, Z1 and (SQUARES) Z2 of run r for the queries of vector v, p being exp(logit - reference).
template <bool WINDOW, bool SQUARES>
CSM_INLINE Sums moments(const Tile& tile, int64_t r, vf s, vf slope, vf reference, int v) {
  const Run run = tile.runs[r];
  const int64_t n = run.count;
  Sums z = {};
  if (n) {
    const View view = look<WINDOW>(run, tile.position(v), tile.batch->window);
    const vf at_first = fma(slope, view.first, s), at_last = fma(slope, view.last, s);
    const vf largest = max(at_first, at_last);
    vf e = exp_negative(largest - reference);
    if (WINDOW) e = select(view.count > 0, e, vf{});
    if (n == 1) {
      z.p = e;
      z.u = e * view.first;
      z.v = z.u * view.first;
    } else {
      const vi rising = slope > 0.0f;
      const vf anchor = select(rising, view.last, view.first);
      const vf signed_step = select(rising, all(-run.step), all(run.step));
      const vf exponent = min(slope, -slope) * run.step;
      const int64_t widest = 2 * tile.batch->window + 1;
      const Sums g = WINDOW ? geometric<SQUARES>(exponent, view.count, n < widest ? n : widest)
                            : geometric<SQUARES>(exponent, n);
      z.p = e * g.p;
      const vf moved = signed_step * g.u;
      z.u = e * fma(anchor, g.p, moved);
      if (SQUARES) z.v = e * fma(anchor, fma(anchor, g.p, moved * 2.0f), all(run.step * run.step) * g.v);
    }
  }
  if (r == 0) {
    const vi held = held_count<WINDOW>(tile, v);
    z.p += select(held > 0, to_float(held) * exp_negative(s - reference), vf{});
  }
  return z;
}

// One tile of queries: columns [width][NR] in, output [width][NR] and the log of the sum of exponentials out.
template <bool WINDOW>
void attend_tile(const Tile& tile, const float* key_rows, const float* value_rows, const float* columns, float* logits,
                 float* output, float* lse) {
  const int64_t d = tile.batch->width, stride = tile.batch->padded();
  float maximum[NR], total[NR];
  for (int i = 0; i < NR; ++i) {
    maximum[i] = NOTHING;
    total[i] = 0;
  }
  memset(output, 0, (size_t)(d * NR) * sizeof(float));
  for (int64_t r0 = tile.begin; r0 < tile.end; r0 += CHUNK) {
    const int64_t r1 = tile.chunk_end(r0), count = tile.rows(r0);
    logits_of(count, key_rows + r0 * stride, stride, columns, d, logits);
    float before[NR];
    memcpy(before, maximum, sizeof before);
    raise_maximum<WINDOW>(tile, r0, r1, logits, maximum);
    for (int v = 0; v < NV; ++v) {
      const vf reference = load(maximum + v * W);
      vf sum = load(total + v * W);
      if (r0 > tile.begin) {
        const vf shrink = exp_negative(load(before + v * W) - reference);
        sum *= shrink;
        for (int64_t c = 0; c < d; ++c) store(output + c * NR + v * W, load(output + c * NR + v * W) * shrink);
      }
      // The logits become what each value counts; a run gives its Z1 to the next value.
      float* at = logits + v * W;
      vf given = {}, s = load(at);
      for (int64_t r = r0; r < r1; ++r, at += NR) {
        const vf next = r - r0 + 1 < count ? load(at + NR) : s;
        const Sums z = moments<WINDOW, false>(tile, r, s, next - s, reference, v);
        sum += z.p;
        store(at, z.p - z.u + given);
        given = z.u;
        s = next;
      }
      if (count > r1 - r0) store(at, given);
      store(total + v * W, sum);
    }
    product<true>(d, value_rows + r0 * stride, stride, logits, NR, count, output, NR, r0 > tile.begin);
  }
  for (int i = 0; i < NR; ++i) {
    const float share = total[i] > 0 ? 1 / total[i] : 0;
    lse[i] = total[i] > 0 ? maximum[i] + logf(total[i]) : -INFINITY;
    total[i] = share;
  }
  for (int64_t c = 0; c < d; ++c)
    for (int v = 0; v < NV; ++v) store(output + c * NR + v * W, load(output + c * NR + v * W) * load(total + v * W));
}

// Columns [width][NR] of a tile back to rows of a packed tensor.
void give_queries(const Batch& batch, const Sequence& seq, int64_t head, const Tile& tile, const float* columns,
                  float factor, float* t) {
  for (int64_t i = 0; i < tile.count; ++i) {
    float* to = t + batch.row(seq.q0 + tile.first + i, head);
    for (int64_t c = 0; c < batch.width; ++c) to[c] = columns[c * NR + i] * factor;
  }
}

template <bool WINDOW>
void backward_tile(const Tile& tile, const float* key_rows, const float* value_rows, const float* columns,
                   const float* gradient_columns, const float* lse, const float* mean, float* logits, float* slopes,
                   const float* query_rows, const float* gradient_rows, float* query_gradient, float* key_gradient,
                   float* value_gradient) {
  const int64_t d = tile.batch->width, stride = tile.batch->padded();
  for (int64_t r0 = tile.begin; r0 < tile.end; r0 += CHUNK) {
    const int64_t r1 = tile.chunk_end(r0), count = tile.rows(r0), from = r0 * stride;
    logits_of(count, key_rows + from, stride, columns, d, logits);
    product<false>(count, value_rows + from, stride, gradient_columns, NR, d, slopes, NR, false);
    for (int v = 0; v < NV; ++v) {
      const vf reference = load(lse + v * W), delta = load(mean + v * W);
      float *at = logits + v * W, *by = slopes + v * W;
      vf given = {}, given_slope = {}, s = load(at), a = load(by);
      for (int64_t r = r0; r < r1; ++r, at += NR, by += NR) {
        const bool more = r - r0 + 1 < count;
        const vf next = more ? load(at + NR) : s, next_a = more ? load(by + NR) : a;
        const Sums z = moments<WINDOW, true>(tile, r, s, next - s, reference, v);
        const vf above = a - delta, rise = next_a - a;
        const vf by_slope = fma(above, z.u, rise * z.v);
        store(at, fma(above, z.p, rise * z.u) - by_slope + given_slope);
        store(by, z.p - z.u + given);
        given_slope = by_slope;
        given = z.u;
        s = next;
        a = next_a;
      }
      if (count > r1 - r0) {
        store(at, given_slope);
        store(by, given);
      }
    }
    // Now logits holds the gradients of the keys' logits, slopes what each value counts.
    product<true>(d, key_rows + from, stride, logits, NR, count, query_gradient, NR, r0 > tile.begin);
    for (int64_t c = 0; c < stride; c += NR) {
      product<false>(count, logits, NR, query_rows + c, stride, NR, key_gradient + from + c, stride, true);
      product<false>(count, slopes, NR, gradient_rows + c, stride, NR, value_gradient + from + c, stride, true);
    }
  }
}

int64_t most_rows(const Batch& batch, int64_t sequences) {
  int64_t most = 0;
  for (int64_t s = 0; s < sequences; ++s) {
    const Sequence seq = batch.sequence(s);
    const int64_t rows = seq.empty() ? 0 : seq.runs();
    most = rows > most ? rows : most;
  }
  return most;
}

}  // namespace

// q, output [total_q, H, d]; k, v [total_k, H, d]; lse [total_q, H]. window < 0: none.
CSM_EXPORT(interpolated_attention)(const float* q, const float* k, const float* v, const int64_t* bounds_q,
                                   const int64_t* bounds_k, const int64_t* lengths, const int64_t* offsets,
                                   int64_t sequences, int64_t heads, int64_t width, int64_t window, double scale,
                                   int64_t threads, float* output, float* lse) {
  const Batch batch = {bounds_q, bounds_k, lengths, offsets, heads, width, window, (float)scale};
  const int64_t rows = most_rows(batch, sequences), stride = batch.padded();
  // Task t of sequence s and head h is a block of its queries; blocks are counted as they come.
  int64_t blocks = 0;
  for (int64_t s = 0; s < sequences; ++s) blocks += (batch.sequence(s).queries + BLOCK - 1) / BLOCK;
#pragma omp parallel num_threads((int)threads)
  {
    float* key_rows = scratch(2 * rows * stride + NR * stride + 2 * width * NR + (CHUNK + 1) * NR);
    float* value_rows = key_rows + rows * stride;
    float* query_rows = value_rows + rows * stride;
    float* columns = query_rows + NR * stride;
    float* result = columns + width * NR;
    float* logits = result + width * NR;
    Run* runs = static_cast<Run*>(malloc((size_t)(rows + 1) * sizeof(Run)));
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < blocks * heads; ++task) {
      const int64_t head = task % heads;
      int64_t s = 0, block = task / heads;
      for (int64_t n; block >= (n = (batch.sequence(s).queries + BLOCK - 1) / BLOCK); ++s) block -= n;
      const Sequence seq = batch.sequence(s);
      const int64_t begin = block * BLOCK, end = begin + BLOCK < seq.queries ? begin + BLOCK : seq.queries;
      if (seq.empty()) {
        for (int64_t i = begin; i < end; ++i) {
          memset(output + batch.row(seq.q0 + i, head), 0, (size_t)width * sizeof(float));
          lse[(seq.q0 + i) * heads + head] = -INFINITY;
        }
        continue;
      }
      find_runs(seq, runs);
      gather(batch, seq, head, k, key_rows);
      gather(batch, seq, head, v, value_rows);
      for (int64_t first = begin; first < end; first += NR) {
        const Tile tile = tile_of(batch, seq, runs, first);
        float sums[NR];
        take_queries(batch, seq, head, first, tile.count, q, batch.scale, query_rows, columns);
        if (window < 0)
          attend_tile<false>(tile, key_rows, value_rows, columns, logits, result, sums);
        else
          attend_tile<true>(tile, key_rows, value_rows, columns, logits, result, sums);
        give_queries(batch, seq, head, tile, result, 1, output);
        for (int64_t i = 0; i < tile.count; ++i) lse[(seq.q0 + first + i) * heads + head] = sums[i];
      }
    }
    free(runs);
    free(key_rows);
  }
}

// One thread takes a head of a sequence, so that every sum into dk and dv has one order.
CSM_EXPORT(interpolated_attention_backward)(const float* gradient, const float* output, const float* lse, const float* q,
                                            const float* k, const float* v, const int64_t* bounds_q,
                                            const int64_t* bounds_k, const int64_t* lengths, const int64_t* offsets,
                                            int64_t sequences, int64_t heads, int64_t width, int64_t window, double scale,
                                            int64_t threads, float* dq, float* dk, float* dv) {
  const Batch batch = {bounds_q, bounds_k, lengths, offsets, heads, width, window, (float)scale};
  const int64_t rows = most_rows(batch, sequences), stride = batch.padded();
#pragma omp parallel num_threads((int)threads)
  {
    float* key_rows = scratch(4 * rows * stride + 2 * NR * stride + 3 * width * NR + 2 * (CHUNK + 1) * NR);
    float* value_rows = key_rows + rows * stride;
    float* key_gradient = value_rows + rows * stride;
    float* value_gradient = key_gradient + rows * stride;
    float* query_rows = value_gradient + rows * stride;
    float* gradient_rows = query_rows + NR * stride;
    float* columns = gradient_rows + NR * stride;
    float* gradient_columns = columns + width * NR;
    float* result = gradient_columns + width * NR;
    float* logits = result + width * NR;
    float* slopes = logits + (CHUNK + 1) * NR;
    Run* runs = static_cast<Run*>(malloc((size_t)(rows + 1) * sizeof(Run)));
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < sequences * heads; ++task) {
      const int64_t head = task % heads;
      const Sequence seq = batch.sequence(task / heads);
      if (seq.empty()) {
        for (int64_t i = 0; i < seq.queries; ++i)
          memset(dq + batch.row(seq.q0 + i, head), 0, (size_t)width * sizeof(float));
        for (int64_t i = 0; i < seq.keys; ++i) {
          memset(dk + batch.row(seq.k0 + i, head), 0, (size_t)width * sizeof(float));
          memset(dv + batch.row(seq.k0 + i, head), 0, (size_t)width * sizeof(float));
        }
        continue;
      }
      find_runs(seq, runs);
      gather(batch, seq, head, k, key_rows);
      gather(batch, seq, head, v, value_rows);
      const size_t gathered = (size_t)(seq.runs() * stride) * sizeof(float);
      memset(key_gradient, 0, gathered);
      memset(value_gradient, 0, gathered);
      for (int64_t first = 0; first < seq.queries; first += NR) {
        const Tile tile = tile_of(batch, seq, runs, first);
        float sums[NR] = {}, mean[NR] = {};
        take_queries(batch, seq, head, first, tile.count, q, batch.scale, query_rows, columns);
        take_queries(batch, seq, head, first, tile.count, gradient, 1, gradient_rows, gradient_columns);
        for (int64_t i = 0; i < tile.count; ++i) {
          const float* g = gradient + batch.row(seq.q0 + first + i, head);
          const float* o = output + batch.row(seq.q0 + first + i, head);
          vf product = {};
          int64_t c = 0;
          for (; c + W <= width; c += W) product = fma(load(g + c), load(o + c), product);
          mean[i] = sum(product);
          for (; c < width; ++c) mean[i] += g[c] * o[c];
          sums[i] = lse[(seq.q0 + first + i) * heads + head];
          // A query that sees nothing: no position is in its window, so any finite number does.
          if (sums[i] == -INFINITY) sums[i] = 0;
        }
        memset(result, 0, (size_t)(width * NR) * sizeof(float));
        if (window < 0)
          backward_tile<false>(tile, key_rows, value_rows, columns, gradient_columns, sums, mean, logits, slopes,
                               query_rows, gradient_rows, result, key_gradient, value_gradient);
        else
          backward_tile<true>(tile, key_rows, value_rows, columns, gradient_columns, sums, mean, logits, slopes,
                              query_rows, gradient_rows, result, key_gradient, value_gradient);
        give_queries(batch, seq, head, tile, result, batch.scale, dq);
      }
      scatter(batch, seq, head, key_gradient, dk);
      scatter(batch, seq, head, value_gradient, dv);
    }
    free(runs);
    free(key_rows);
  }
}
