// depth_frame on the CPU: the K - 1 dependent steps of one frame in one parallel region.
//
// A step is a chain of matrix-vector products, so its time is that of reading the weights. The model's own tensors are
// read, once per step: threads share the rows of a product in blocks of 16, four rows per pass over the input, whose
// sums stay in registers. Small operations (norms, rotary positions, attention over at most K keys, the draw) are
// repeated by every thread, keys and values too: that costs less than a barrier.
// A row's sum has one order for every thread, so the number of threads changes no bit.
#include "../simd.h"

namespace {

constexpr int64_t BLOCK = 16;      // rows that one thread takes at a time; a multiple of every W
constexpr int64_t ROWS = 4;        // rows of a product that share one reading of its input

int64_t padded(int64_t n) { return (n + BLOCK - 1) / BLOCK * BLOCK; }

CSM_INLINE vf weights(const float* p) { return load(p); }
CSM_INLINE vf weights(const int8_t* p) {
#if defined(__AVX512F__)
  return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)
  return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
  vf v;
  for (int i = 0; i < W; ++i) v[i] = (float)p[i];
  return v;
#endif
}

// The first n < W weights, then zeros: memory after the last row must not be read.
template <typename T>
CSM_INLINE vf first_weights(const T* p, int64_t n) {
  vf v = {};
  for (int64_t i = 0; i < n; ++i) v[i] = (float)p[i];
  return v;
}

// out[r] = the sum of v[r]'s lanes.
CSM_INLINE void store_sums(const vf (&v)[ROWS], float* out) {
#if defined(__AVX512F__)
  const __m512 a = (__m512)v[0], b = (__m512)v[1], c = (__m512)v[2], d = (__m512)v[3];
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512 all_4 = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all_4), _mm512_extractf32x8_ps(all_4, 1));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
#elif defined(__AVX2__)
  const __m256 a = (__m256)v[0], b = (__m256)v[1], c = (__m256)v[2], d = (__m256)v[3];
  const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
  const __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
  const __m256 all_4 = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(all_4), _mm256_extractf128_ps(all_4, 1)));
#else
  for (int r = 0; r < ROWS; ++r) out[r] = (v[r][0] + v[r][2]) + (v[r][1] + v[r][3]);
#endif
}

// out[r] = rows[r] . x for ROWS rows; of fewer rows the last is repeated.
// x is readable, and finite, up to a whole number of vectors.
template <typename T>
CSM_INLINE void dot_rows(const T* rows, int64_t stride, int64_t count, const float* x, int64_t n, float* out) {
  const T* row[ROWS];
  for (int r = 0; r < ROWS; ++r) row[r] = rows + (r < count ? r : count - 1) * stride;
  vf sums[ROWS] = {}, others[ROWS] = {};
  int64_t i = 0;
  for (; i + 2 * W <= n; i += 2 * W) {
    const vf x0 = load(x + i), x1 = load(x + i + W);
    for (int r = 0; r < ROWS; ++r) {
      // The rows of the next call: more streams at a time than a CPU prefetches by itself.
      if (sizeof(T) == 4 || i % (4 * W) == 0) __builtin_prefetch(row[r] + ROWS * stride + i, 0, 3);
      if (sizeof(T) == 4) __builtin_prefetch(row[r] + ROWS * stride + i + W, 0, 3);
      sums[r] = fma(x0, weights(row[r] + i), sums[r]);
      others[r] = fma(x1, weights(row[r] + i + W), others[r]);
    }
  }
  if (i + W <= n) {
    const vf x0 = load(x + i);
    for (int r = 0; r < ROWS; ++r) sums[r] = fma(x0, weights(row[r] + i), sums[r]);
    i += W;
  }
  if (i < n) {
    const vf x0 = load(x + i);
    for (int r = 0; r < ROWS; ++r) others[r] = fma(x0, first_weights(row[r] + i, n - i), others[r]);
  }
  for (int r = 0; r < ROWS; ++r) sums[r] += others[r];
  store_sums(sums, out);
}

struct Thread {
  int64_t me, team;

  // take(first, last) for this thread's share of `count` rows; shares end at whole blocks.
  template <typename Take>
  void share(int64_t count, const Take& take) const {
    const int64_t blocks = (count + BLOCK - 1) / BLOCK;
    const int64_t first = blocks * me / team * BLOCK, last = blocks * (me + 1) / team * BLOCK;
    if (first < last) take(first, last < count ? last : count);
  }
};

// A matrix [out, in] in fp32, or int8 times a scale per row.
template <typename T>
struct Matrix {
  const T* values;
  const float* scale;

  void rows_of(int64_t first, int64_t last, int64_t in, const float* x, float* out) const {
    for (int64_t row = first; row < last; row += ROWS)
      dot_rows(values + row * in, in, last - row, x, in, out + row);
    if (scale)
      for (int64_t row = first; row < last; ++row) out[row] *= scale[row];
    for (int64_t row = last; row % ROWS; ++row) out[row] = 0;  // vectors stay zero behind their end
  }

  // This thread's share of the product with x [in].
  void times(const Thread& thread, int64_t rows, int64_t in, const float* x, float* out) const {
    thread.share(rows, [&](int64_t first, int64_t last) { rows_of(first, last, in, x, out); });
  }
};

// Sizes in the order of depth_frame/cpu.py.
struct Shape {
  int64_t books, vocab, outer, width, heads, kv_heads, head, hidden, layers, cumulative;
};

constexpr int64_t SHARED = 6, OF_LAYER = 9;  // tensors; then as many scales again, null without int8

template <typename T>
struct Frame {
  Shape shape;
  const void* const* tensors;
  const float* const* scales;
  float eps;               // of RMSNorm
  const float* row;        // [outer], the backbone's
  int64_t drawn;           // codes that may be drawn
  int64_t columns;         // logits that are computed
  float temperature;
  int64_t top_k;
  const double* uniforms;  // [books - 1], read above temperature 0

  const float* numbers(int64_t i) const { return static_cast<const float*>(tensors[i]); }
  Matrix<T> matrix(int64_t i) const { return {static_cast<const T*>(tensors[i]), scales[i]}; }
  int64_t of_layer(int64_t layer, int64_t i) const { return SHARED + layer * OF_LAYER + i; }
};

enum { TABLE, PROJECTION, NORM, HEADS, COS, SIN };
enum { ATTENTION_NORM, Q, K, V, O, FEED_FORWARD_NORM, GATE, UP, DOWN };

// y = x / rms(x) * weight; both are zero from width on.
CSM_INLINE void normalise(const float* x, const float* weight, int64_t width, float eps, float* y) {
  vf squares = {};
  for (int64_t i = 0; i < width; i += W) squares = fma(load(x + i), load(x + i), squares);
  const float scale = 1.0f / sqrtf(sum(squares) / (float)width + eps);
  int64_t i = 0;
  for (; i + W <= width; i += W) store(y + i, load(x + i) * scale * load(weight + i));
  if (i < width) store(y + i, load(x + i) * scale * first_weights(weight + i, width - i));
}

CSM_INLINE void add(float* x, const float* branch, int64_t width) {
  for (int64_t i = 0; i < width; i += W) store(x + i, load(x + i) + load(branch + i));
}

// Half-split rotary positions; `from` is dense, heads of `to` are padded with zeros.
CSM_INLINE void rotate(const float* from, const float* cos, const float* sin, int64_t heads, int64_t head, float* to,
                       int64_t to_stride) {
  const int64_t half = head / 2;
  for (int64_t n = 0; n < heads; ++n, from += head, to += to_stride)
    for (int64_t i = 0; i < half; ++i) {
      to[i] = from[i] * cos[i] - from[half + i] * sin[i];
      to[half + i] = from[half + i] * cos[i] + from[i] * sin[i];
    }
}

// One query over `count` keys [count, stride]: to[0..head) (and zeros to the end of a vector).
CSM_INLINE void attend(const float* q, const float* keys, const float* values, int64_t count, int64_t head,
                       int64_t stride, float* scores, float* to) {
  const float scale = 1.0f / sqrtf((float)head);
  for (int64_t j = 0; j < count; j += ROWS) dot_rows(keys + j * stride, stride, count - j, q, stride, scores + j);
  float largest = scores[0];
  for (int64_t j = 1; j < count; ++j) largest = scores[j] > largest ? scores[j] : largest;
  for (int64_t j = count; j < padded(count); ++j) scores[j] = -INFINITY;
  vf total = {};
  for (int64_t j = 0; j < count; j += W) {
    const vf e = exp_negative((load(scores + j) - largest) * scale);
    store(scores + j, e);
    total += e;
  }
  const float share = 1.0f / sum(total);
  for (int64_t i = 0; i < head; i += W) {
    vf out = {};
    for (int64_t j = 0; j < count; ++j) out = fma(all(scores[j]), load(values + j * stride + i), out);
    store(to + i, out * share);
  }
}

// silu(gate) * up, in place of gate, from `first` to the end of a block.
CSM_INLINE void gate_up(float* gate, const float* up, int64_t first, int64_t last) {
  for (int64_t i = first; i < last; i += W) {
    const vf g = load(gate + i), e = exp_negative(select(g < 0.0f, g, -g));
    store(gate + i, g * select(g < 0.0f, e, all(1.0f)) / (1.0f + e) * load(up + i));
  }
}

// Logits from a head that is stored [in, vocab]: four of its rows at a time are added to the sums.
CSM_INLINE void head_product(const Thread& thread, const Frame<float>& frame, int64_t book, const float* x, float* logits) {
  const int64_t in = frame.shape.width, vocab = frame.shape.vocab;
  const float* head = frame.numbers(HEADS) + book * in * vocab;
  thread.share(frame.columns, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; c += W) store(logits + c, vf{});
    for (int64_t i = 0; i < in; i += ROWS) {
      const float* row[ROWS];
      vf factor[ROWS];
      for (int r = 0; r < ROWS; ++r) {
        row[r] = head + (i + r < in ? i + r : i) * vocab;
        factor[r] = all(i + r < in ? x[i + r] : 0.0f);
      }
      int64_t c = first;
      for (; c + W <= last; c += W) {
        for (int r = 0; r < ROWS; ++r) __builtin_prefetch(row[r] + ROWS * vocab + c, 0, 3);
        const vf even = fma(factor[1], load(row[1] + c), factor[0] * load(row[0] + c));
        const vf odd = fma(factor[3], load(row[3] + c), factor[2] * load(row[2] + c));
        store(logits + c, load(logits + c) + (even + odd));
      }
      if (c < last) {
        vf part[ROWS];
        for (int r = 0; r < ROWS; ++r) part[r] = first_weights(row[r] + c, last - c);
        const vf even = fma(factor[1], part[1], factor[0] * part[0]);
        const vf odd = fma(factor[3], part[3], factor[2] * part[2]);
        store(logits + c, load(logits + c) + (even + odd));
      }
    }
  });
}

// In int8 a head is stored [vocab, in], a scale per logit.
CSM_INLINE void head_product(const Thread& thread, const Frame<int8_t>& frame, int64_t book, const float* x, float* logits) {
  const int64_t in = frame.shape.width, vocab = frame.shape.vocab;
  const Matrix<int8_t> all_heads = frame.matrix(HEADS);
  const Matrix<int8_t> head = {all_heads.values + book * in * vocab, all_heads.scale + book * vocab};
  head.times(thread, frame.columns, in, x, logits);
}

// The first largest of `count` logits, -1 where one is NaN or none is finite. logits are readable to the end of a vector.
CSM_INLINE int64_t largest_of(const float* logits, int64_t count) {
  vf best = all(-INFINITY);
  vi index = all((int32_t)count), nan = {};
  for (int64_t i = 0; i < count; i += W) {
    const vi place = lanes() + (int32_t)i;
    const vf x = select(place < (int32_t)count, load(logits + i), all(-INFINITY));
    nan |= x != x;
    const vi larger = x > best;
    best = select(larger, x, best);
    index = select(larger, place, index);
  }
  int64_t found = count;
  float value = -INFINITY;
  for (int i = 0; i < W; ++i) {
    if (nan[i] || best[i] == INFINITY) return -1;
    if (best[i] > value || (best[i] == value && index[i] < found)) {
      value = best[i];
      found = index[i];
    }
  }
  return found < count ? found : -1;
}

// The k-th largest of `count` logits, and how many are above it: a heap of the k largest so far, smallest first.
float bound_of(const float* logits, int64_t count, int64_t k, float* heap, int64_t* above) {
  const auto sink = [&](int64_t at, float x) {
    for (int64_t child; (child = 2 * at + 1) < k; at = child) {
      if (child + 1 < k && heap[child + 1] < heap[child]) ++child;
      if (heap[child] >= x) break;
      heap[at] = heap[child];
    }
    heap[at] = x;
  };
  memcpy(heap, logits, (size_t)k * sizeof(float));
  for (int64_t at = k / 2 - 1; at >= 0; --at) sink(at, heap[at]);
  for (int64_t i = k; i < count; ++i)
    if (logits[i] > heap[0]) sink(0, logits[i]);
  *above = 0;
  for (int64_t i = 0; i < k; ++i) *above += heap[i] > heap[0];
  return heap[0];
}

// As in reference.py: of the top_k largest logits (of equal ones the lowest codes) the first code whose cumulative
// weight exceeds the uniform's share of the total. `space` holds three numbers for each code that may be drawn.
template <typename T>
CSM_INLINE int64_t draw(const Frame<T>& frame, const float* logits, double uniform, float* space) {
  const int64_t largest_code = largest_of(logits, frame.drawn);
  if (largest_code < 0 || frame.temperature == 0) return largest_code;
  float bound = -INFINITY;
  int64_t above = 0, equal = frame.drawn;
  if (0 < frame.top_k && frame.top_k < frame.drawn) {
    bound = bound_of(logits, frame.drawn, frame.top_k, space, &above);
    equal = frame.top_k - above;
  }
  const int64_t room = padded(frame.drawn);
  int32_t* codes = reinterpret_cast<int32_t*>(space + room);
  float* weight = space + 2 * room;
  int64_t count = 0;
  for (int64_t i = 0; i < frame.drawn; ++i)
    if (logits[i] > bound || (logits[i] == bound && equal-- > 0)) {
      codes[count] = (int32_t)i;
      weight[count++] = logits[i];
    }
  for (int64_t i = count; i < padded(count); ++i) weight[i] = -INFINITY;
  const float largest = logits[largest_code];
  double total = 0, passed = 0;
  for (int64_t i = 0; i < count; i += W) store(weight + i, exp_negative((load(weight + i) - largest) / frame.temperature));
  for (int64_t i = 0; i < count; ++i) total += weight[i];
  for (int64_t i = 0; i < count; ++i) {
    passed += weight[i];
    if (passed > uniform * total) return codes[i];
  }
  return largest_code;  // unreachable for a uniform below 1
}

// Vectors of one thread, padded with zeros.
struct Own {
  float *x, *normed, *q, *attended, *scores, *space, *keys, *values;
};

// Vectors that all threads write their share of; a barrier stands before each reading.
struct Common {
  float *branch, *q, *k, *v, *gate, *up, *logits;
};

// Cuts one allocation of zeros into pieces.
struct Pieces {
  float* memory;
  int64_t used;
  float* take(int64_t floats) {
    float* piece = memory ? memory + used : nullptr;
    used += padded(floats);
    return piece;
  }
};

template <typename Take>
float* pieces(const Take& take) {
  Pieces size = {nullptr, 0};
  take(size);
  Pieces all_of = {scratch(size.used), 0};
  memset(all_of.memory, 0, (size_t)size.used * sizeof(float));
  take(all_of);
  return all_of.memory;
}

// One row through the layers; row 0 has no head, so that its last layer needs only keys and values.
template <typename T>
CSM_INLINE void run_row(const Frame<T>& frame, const Thread& thread, const Own& own, const Common& common, int64_t place,
                        const float* input) {
  const Shape& s = frame.shape;
  const int64_t stride = padded(s.head), of_head = s.books * stride, of_layer = s.kv_heads * of_head;
  const float *cos = frame.numbers(COS) + place * (s.head / 2), *sin = frame.numbers(SIN) + place * (s.head / 2);
  frame.matrix(PROJECTION).times(thread, s.width, s.outer, input, common.branch);
#pragma omp barrier
  memcpy(own.x, common.branch, (size_t)s.width * sizeof(float));
  for (int64_t layer = 0; layer < s.layers; ++layer) {
    const auto of = [&](int64_t i) { return frame.of_layer(layer, i); };
    const bool only_keys = place == 0 && layer + 1 == s.layers;
    float *keys = own.keys + layer * of_layer, *values = own.values + layer * of_layer;
    normalise(own.x, frame.numbers(of(ATTENTION_NORM)), s.width, frame.eps, own.normed);
    if (!only_keys) frame.matrix(of(Q)).times(thread, s.heads * s.head, s.width, own.normed, common.q);
    frame.matrix(of(K)).times(thread, s.kv_heads * s.head, s.width, own.normed, common.k);
    frame.matrix(of(V)).times(thread, s.kv_heads * s.head, s.width, own.normed, common.v);
#pragma omp barrier
    rotate(common.k, cos, sin, s.kv_heads, s.head, keys + place * stride, of_head);
    for (int64_t m = 0; m < s.kv_heads; ++m)
      memcpy(values + m * of_head + place * stride, common.v + m * s.head, (size_t)s.head * sizeof(float));
    if (only_keys) break;
    rotate(common.q, cos, sin, s.heads, s.head, own.q, stride);
    for (int64_t n = 0; n < s.heads; ++n) {
      const int64_t shared = n / (s.heads / s.kv_heads) * of_head;
      attend(own.q + n * stride, keys + shared, values + shared, place + 1, s.head, stride, own.scores,
             own.attended + n * s.head);
    }
    frame.matrix(of(O)).times(thread, s.width, s.heads * s.head, own.attended, common.branch);
#pragma omp barrier
    add(own.x, common.branch, s.width);
    normalise(own.x, frame.numbers(of(FEED_FORWARD_NORM)), s.width, frame.eps, own.normed);
    thread.share(s.hidden, [&](int64_t first, int64_t last) {
      frame.matrix(of(GATE)).rows_of(first, last, s.width, own.normed, common.gate);
      frame.matrix(of(UP)).rows_of(first, last, s.width, own.normed, common.up);
      gate_up(common.gate, common.up, first, last);
    });
#pragma omp barrier
    frame.matrix(of(DOWN)).times(thread, s.width, s.hidden, common.gate, common.branch);
#pragma omp barrier
    add(own.x, common.branch, s.width);
  }
}

template <typename T>
void draw_frame(const Frame<T>& frame, int threads, int64_t* codes, float* logits) {
  const Shape& s = frame.shape;
  Common common;
  float* memory = pieces([&](Pieces& p) {
    common = {p.take(s.width + ROWS),           p.take(s.heads * s.head + ROWS), p.take(s.kv_heads * s.head + ROWS),
              p.take(s.kv_heads * s.head + ROWS), p.take(s.hidden + ROWS),         p.take(s.hidden + ROWS),
              p.take(s.vocab + ROWS)};
  });
#pragma omp parallel num_threads(threads)
  {
    const Thread thread = {omp_get_thread_num(), omp_get_num_threads()};
    Own own;
    float* input = nullptr;
    float* mine = pieces([&](Pieces& p) {
      const int64_t cached = s.layers * s.kv_heads * s.books * padded(s.head);
      own = {p.take(s.width),           p.take(s.width),     p.take(s.heads * padded(s.head)),
             p.take(s.heads * s.head + BLOCK), p.take(s.books + ROWS), p.take(3 * padded(s.vocab) + BLOCK),
             p.take(cached),            p.take(cached)};
      input = p.take(s.outer);
    });
    memcpy(input, frame.row, (size_t)s.outer * sizeof(float));
    run_row(frame, thread, own, common, 0, input);
    int64_t code = codes[0];
    for (int64_t book = 1; book < s.books && code >= 0; ++book) {
      const float* row = frame.numbers(TABLE) + (code + (book - 1) * s.vocab) * s.outer;
      for (int64_t i = 0; i < s.outer; ++i) input[i] = s.cumulative ? input[i] + row[i] : row[i];
      run_row(frame, thread, own, common, book, input);
      normalise(own.x, frame.numbers(NORM), s.width, frame.eps, own.normed);
      head_product(thread, frame, book - 1, own.normed, common.logits);
#pragma omp barrier
      code = draw(frame, common.logits, frame.uniforms ? frame.uniforms[book - 1] : 0.0, own.space);
      if (thread.me == 0) {
        codes[book] = code;
        if (logits) memcpy(logits + (book - 1) * s.vocab, common.logits, (size_t)s.vocab * sizeof(float));
      }
    }
    free(mine);
  }
  free(memory);
}

}  // namespace

// codes [books]: the first is given, the others are drawn; -1 where the logits are NaN or infinite.
CSM_EXPORT(depth_frame)(const void* const* tensors, const float* const* scales, const int64_t* shape, double eps,
                        const float* row, int64_t drawn, double temperature, int64_t top_k, const double* uniforms,
                        int64_t threads, int64_t* codes, float* logits) {
  const Shape s = {shape[0], shape[1], shape[2], shape[3], shape[4], shape[5], shape[6], shape[7], shape[8], shape[9]};
  const int64_t columns = logits ? s.vocab : drawn;
  if (scales[PROJECTION])
    draw_frame(Frame<int8_t>{s, tensors, scales, (float)eps, row, drawn, columns, (float)temperature, top_k, uniforms},
               (int)threads, codes, logits);
  else
    draw_frame(Frame<float>{s, tensors, scales, (float)eps, row, drawn, columns, (float)temperature, top_k, uniforms},
               (int)threads, codes, logits);
}
