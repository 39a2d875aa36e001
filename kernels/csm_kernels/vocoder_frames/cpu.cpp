// vocoder_frames on the CPU: FARGAN's signal network, subframe by subframe.
//
// A subframe is a chain of matrix-vector products, so its time is that of reading the weights: 3 MB in fp32, which is
// more than a core's own cache, 0.75 MB in int8. They come packed in the order in which they are read: panels of 16
// outputs, each [in, 16], so that a product is one pass over contiguous memory with its sums in registers. The rows of
// a batch share each reading of a panel. A sum has one order for any number of rows, so neither the batch nor the
// threads change a bit, and a state is all that a call leaves to the next.
#include "../simd.h"

namespace {

constexpr int PANEL = 16;               // outputs of a panel
constexpr int V = PANEL / W;            // vectors of them
constexpr int CHAINS = 8 / V;           // sums of each output: 8 independent additions hide their latency
constexpr int64_t BLOCK = 16 * CHAINS;  // inputs whose sum joins the total as one: less rounding
#if defined(__AVX512F__)
constexpr int ROWS = 3;                 // rows of a product: 27 of 32 registers
#else
constexpr int ROWS = 1;                 // 10 of 16 with AVX2
#endif

// As in weights.py.
constexpr int64_t SUBFRAME = 40, FRAME = 160, CONDITION = 80, PREDICTED = 44, HISTORY = 256;
constexpr int64_t MEMORY = CONDITION + PREDICTED + SUBFRAME, CONVOLVED = 192, SKIPPED = 128;
constexpr int64_t TAIL = 2 * SUBFRAME;  // pitch prediction and last samples, at the end of inputs
constexpr int64_t STATE[3] = {160, 128, 128};
constexpr float LARGEST_LOG_GAIN = 1.3862943611198906f;  // log 4

constexpr int64_t padded(int64_t n) { return (n + PANEL - 1) / PANEL * PANEL; }

// Where the vectors of a row lie in its workspace.
enum : int64_t {
  PAST = 0,                                     // last samples, and those of the frame
  READ = PAST + padded(HISTORY + FRAME),        // convolution's inputs: last subframe's, this one's
  FEATURES = READ + padded(2 * MEMORY),
  JOINED = FEATURES + CONVOLVED,                // input of a GRU
  STATE1 = JOINED + padded(CONVOLVED + TAIL),
  STATE2 = STATE1 + STATE[0],
  STATE3 = STATE2 + STATE[1],
  SKIP_READ = STATE3 + STATE[2],                // gated states, features, pitch prediction, last samples
  SKIP = SKIP_READ + padded(STATE[0] + STATE[1] + STATE[2] + CONVOLVED + TAIL),
  SUMS = SKIP + SKIPPED,
  RECURRENT = SUMS + 3 * STATE[0],
  GATE = RECURRENT + 3 * STATE[0],
  GAIN = GATE + CONVOLVED,
  PITCH_GAINS = GAIN + PANEL,
  WORKSPACE = PITCH_GAINS + PANEL,
};

CSM_INLINE vf sigmoid(vf x) {
  const vf e = exp_negative(select(x < 0.0f, x, -x));
  return select(x < 0.0f, e, all(1.0f)) / (1.0f + e);
}

CSM_INLINE vf tanh_of(vf x) {
  const Exponential e = split_exponential(max(select(x < 0.0f, x, -x) * 2.0f, all(-87.0f)));
  const vf size = ((1.0f - e.power) - e.power * e.p) / (1.0f + fma(e.power, e.p, e.power));
  return select(x < 0.0f, -size, size);
}

CSM_INLINE vf weights_at(const float* p) { return load(p); }
CSM_INLINE vf weights_at(const int8_t* p) {
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

// to[r] = one panel times x[r], for R rows; `scale` is that of the panel's outputs, null without int8.
template <int R, typename T>
CSM_INLINE void times_panel(const T* panel, const float* scale, int64_t in, const float* x, float* to) {
  vf totals[R][V] = {};
  for (int64_t block = 0; block < in; block += BLOCK) {
    const int64_t last = block + BLOCK < in ? block + BLOCK : in;
    vf sums[R][CHAINS][V] = {};
    for (int64_t i = block; i < last; i += CHAINS)
      for (int c = 0; c < CHAINS; ++c)
        for (int v = 0; v < V; ++v) {
          const vf weight = weights_at(panel + (i + c) * PANEL + v * W);
          for (int r = 0; r < R; ++r) sums[r][c][v] = fma(all(x[r * WORKSPACE + i + c]), weight, sums[r][c][v]);
        }
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) {
        for (int half = CHAINS / 2; half > 0; half /= 2)
          for (int c = 0; c < half; ++c) sums[r][c][v] += sums[r][c + half][v];
        totals[r][v] += sums[r][0][v];
      }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v)
      store(to + r * WORKSPACE + v * W, scale ? totals[r][v] * load(scale + v * W) : totals[r][v]);
}

// A packed matrix times the vector at `from` of `count` workspaces; `to` is written up to a whole panel.
template <typename T>
__attribute__((noinline)) void times_packed(const T* packed, const float* scales, int64_t out, int64_t in, float* memory,
                                            int64_t count, int64_t from, int64_t to) {
  for (int64_t o = 0; o < out; o += PANEL)
    for (int64_t row = 0; row < count; row += ROWS)
      take_height<ROWS>(count - row < ROWS ? count - row : ROWS, row, [&](auto height, int64_t first) {
        float* base = memory + first * WORKSPACE;
        times_panel<decltype(height)::value>(packed + o * in, scales ? scales + o : nullptr, in, base + from, base + to + o);
      });
}

// Weights in the order of cpu.py.
template <typename T>
struct Packed {
  const float* biases;       // of the log gain, of the four pitch gains
  const float* gain;         // matrices that are never in int8
  const float* pitch_gains;
  const T* matrices;         // the next one of the others
  const float* scales;       // of its outputs; null without int8
};

// The rows of one thread, which go through the network together.
template <typename T>
struct Rows {
  float* memory;  // [count, WORKSPACE]
  int64_t count;
  Packed<T> weights;

  template <typename Take>
  void each(const Take& take) const {
    for (int64_t row = 0; row < count; ++row) take(memory + row * WORKSPACE, row);
  }

  // The next matrix [out, in] times the vector at `from` of every row.
  void times(int64_t out, int64_t in, int64_t from, int64_t to) {
    times_packed(weights.matrices, weights.scales, out, in, memory, count, from, to);
    weights.matrices += padded(out) * in;
    if (weights.scales) weights.scales += padded(out);
  }

  // The next matrix is a gate: to = x * sigmoid(matrix x), for the vector x at `from`.
  void gated(int64_t width, int64_t from, int64_t to) {
    times(width, width, from, GATE);
    each([&](float* w, int64_t) {
      for (int64_t i = 0; i < width; i += W) store(w + to + i, load(w + from + i) * sigmoid(load(w + GATE + i)));
    });
  }

  void squash(int64_t width, int64_t at) const {
    each([&](float* w, int64_t) {
      for (int64_t i = 0; i < width; i += W) store(w + at + i, tanh_of(load(w + at + i)));
    });
  }

  // The next two matrices are those of a GRU of this width, whose input lies at JOINED.
  void update(int64_t width, int64_t in, int64_t state) {
    times(3 * width, in, JOINED, SUMS);
    times(3 * width, width, state, RECURRENT);
    each([&](float* w, int64_t) {
      const float *a = w + SUMS, *r = w + RECURRENT;
      for (int64_t i = 0; i < width; i += W) {
        const vf kept = sigmoid(load(a + i) + load(r + i));
        const vf reset = sigmoid(load(a + width + i) + load(r + width + i));
        const vf candidate = tanh_of(load(a + 2 * width + i) + reset * load(r + 2 * width + i));
        store(w + state + i, kept * load(w + state + i) + (1.0f - kept) * candidate);
      }
    });
  }
};

CSM_INLINE float within_one(float x) { return x < -1.0f ? -1.0f : x > 1.0f ? 1.0f : x; }

// Gain of the subframe; then what the network reads of the samples: their prediction one period ago, and the last 40.
CSM_INLINE void predict(float* w, int64_t end, int64_t period, float bias) {
  const vf log_gain = min(all(w[GAIN] + bias), all(LARGEST_LOG_GAIN));
  const Exponential e = split_exponential(max(log_gain, all(-87.0f)));
  const float gain = log_gain[0] < -87.0f ? 0.0f : fma(e.power, e.p, e.power)[0];
  const float scale = 1.0f / (1e-5f + gain);
  w[GAIN] = gain;
  const float* past = w + PAST;
  float* to = w + READ + MEMORY + CONDITION;
  for (int64_t i = 0; i < PREDICTED; ++i) {
    int64_t place = end - period - 2 + i;
    if (place >= end) place -= period;
    if (place < end - HISTORY) place = end - HISTORY;
    to[i] = within_one(scale * past[place]);
  }
  for (int64_t i = 0; i < SUBFRAME; ++i) to[PREDICTED + i] = within_one(scale * past[end - SUBFRAME + i]);
}

// Pitch prediction times its k-th gain, then the last samples.
CSM_INLINE void tail(const float* w, int k, float* to) {
  const float* predicted = w + READ + MEMORY + CONDITION + 2;
  const float gain = w[PITCH_GAINS + k];
  for (int64_t i = 0; i < SUBFRAME; ++i) to[i] = gain * predicted[i];
  memcpy(to + SUBFRAME, w + READ + 2 * MEMORY - SUBFRAME, SUBFRAME * sizeof(float));
}

CSM_INLINE void copy(float* w, int64_t from, int64_t to, int64_t count) {
  memmove(w + to, w + from, (size_t)count * sizeof(float));
}

// Writes 40 samples of every row to its past [end, end + 40); `period_of(row)` is the period of the prediction.
template <typename T, typename Period>
CSM_INLINE void run_subframe(Rows<T> rows, int64_t end, const Period& period_of) {
  const Packed<T> first = rows.weights;
  times_packed(first.gain, nullptr, 1, CONDITION, rows.memory, rows.count, READ + MEMORY, GAIN);
  rows.each([&](float* w, int64_t row) { predict(w, end, period_of(row), first.biases[0]); });
  rows.times(CONVOLVED, 2 * MEMORY, READ, FEATURES);
  rows.squash(CONVOLVED, FEATURES);
  rows.gated(CONVOLVED, FEATURES, FEATURES);
  times_packed(first.pitch_gains, nullptr, 4, CONVOLVED, rows.memory, rows.count, FEATURES, PITCH_GAINS);
  rows.each([&](float* w, int64_t) {
    for (int k = 0; k < 4; ++k) w[PITCH_GAINS + k] += first.biases[1 + k];
    for (int64_t i = 0; i < PANEL; i += W) store(w + PITCH_GAINS + i, sigmoid(load(w + PITCH_GAINS + i)));
    copy(w, FEATURES, JOINED, CONVOLVED);
    tail(w, 0, w + JOINED + CONVOLVED);
  });
  int64_t gated = CONVOLVED, state = STATE1, out = SKIP_READ;
  for (int k = 0; k < 3; ++k) {
    const int64_t width = STATE[k];
    rows.update(width, gated + TAIL, state);
    rows.gated(width, state, out);
    rows.each([&](float* w, int64_t) {
      copy(w, out, JOINED, width);
      tail(w, k + 1, w + JOINED + width);
    });
    gated = width;
    state += width;
    out += width;
  }
  rows.each([&](float* w, int64_t) {
    copy(w, FEATURES, out, CONVOLVED);
    tail(w, 3, w + out + CONVOLVED);
  });
  rows.times(SKIPPED, out - SKIP_READ + CONVOLVED + TAIL, SKIP_READ, SKIP);
  rows.squash(SKIPPED, SKIP);
  rows.gated(SKIPPED, SKIP, SKIP);
  rows.times(SUBFRAME, SKIPPED, SKIP, SUMS);
  rows.squash(SUBFRAME, SUMS);
  rows.each([&](float* w, int64_t) {
    for (int64_t i = 0; i < SUBFRAME; ++i) w[PAST + end + i] = w[GAIN] * w[SUMS + i];
    copy(w, READ + MEMORY, READ, MEMORY);
  });
}

// Tensors of all rows.
struct Streams {
  const float* conditions;  // [rows, frames, 4, CONDITION]
  const int64_t* periods;   // [rows, frames]
  int64_t frames;
  float *past, *memory, *state[3];  // [rows, HISTORY], [rows, MEMORY], [rows, STATE[k]]; overwritten
  int64_t* period;                  // [rows], overwritten
  float* samples;                   // [rows, frames * FRAME]
};

// Copies the state of a row from or to its workspace.
template <typename Move>
CSM_INLINE void move_state(const Streams& s, int64_t row, float* w, const Move& move) {
  move(s.past + row * HISTORY, w + PAST, HISTORY);
  move(s.memory + row * MEMORY, w + READ, MEMORY);
  int64_t state = STATE1;
  for (int k = 0; k < 3; state += STATE[k++]) move(s.state[k] + row * STATE[k], w + state, STATE[k]);
}

template <typename T>
void run_rows(const Streams& s, const Packed<T>& weights, int64_t first, int64_t last) {
  const Rows<T> rows = {scratch((last - first) * WORKSPACE), last - first, weights};
  memset(rows.memory, 0, (size_t)(rows.count * WORKSPACE) * sizeof(float));
  rows.each([&](float* w, int64_t row) {
    move_state(s, first + row, w, [](const float* from, float* to, int64_t n) { memcpy(to, from, (size_t)n * sizeof(float)); });
    if (s.period[first + row] == 0) s.period[first + row] = s.periods[(first + row) * s.frames];
  });
  for (int64_t t = 0; t < s.frames; ++t) {
    for (int64_t sub = 0; sub < FRAME / SUBFRAME; ++sub) {
      rows.each([&](float* w, int64_t row) {
        const float* condition = s.conditions + (((first + row) * s.frames + t) * 4 + sub) * CONDITION;
        memcpy(w + READ + MEMORY, condition, CONDITION * sizeof(float));
      });
      run_subframe(rows, HISTORY + sub * SUBFRAME, [&](int64_t row) { return s.period[first + row]; });
    }
    rows.each([&](float* w, int64_t row) {
      memcpy(s.samples + ((first + row) * s.frames + t) * FRAME, w + PAST + HISTORY, FRAME * sizeof(float));
      copy(w, PAST + FRAME, PAST, HISTORY);
      s.period[first + row] = s.periods[(first + row) * s.frames + t];
    });
  }
  rows.each([&](float* w, int64_t row) {
    move_state(s, first + row, w, [](float* to, const float* from, int64_t n) { memcpy(to, from, (size_t)n * sizeof(float)); });
  });
  free(rows.memory);
}

template <typename T>
void run(const Streams& streams, const Packed<T>& weights, int64_t rows, int threads) {
#pragma omp parallel num_threads(threads)
  {
    const int64_t me = omp_get_thread_num(), team = omp_get_num_threads();
    const int64_t first = rows * me / team, last = rows * (me + 1) / team;
    if (first < last) run_rows(streams, weights, first, last);
  }
}

}  // namespace

// small: a panel of biases, then the gain and the pitch gains, packed. scales is null where the matrices are fp32.
// frames > 0. past, memory, state1..3 and period are those of the streams, and become those after the last frame.
CSM_EXPORT(vocoder_frames)(const float* small, const void* matrices, const float* scales, const float* conditions,
                           const int64_t* periods, int64_t rows, int64_t frames, int64_t threads, float* past,
                           float* memory, float* state1, float* state2, float* state3, int64_t* period, float* samples) {
  const Streams streams = {conditions, periods, frames, past, memory, {state1, state2, state3}, period, samples};
  const float *gain = small + PANEL, *pitch_gains = gain + PANEL * CONDITION;
  if (scales)
    run<int8_t>(streams, {small, gain, pitch_gains, static_cast<const int8_t*>(matrices), scales}, rows, (int)threads);
  else
    run<float>(streams, {small, gain, pitch_gains, static_cast<const float*>(matrices), nullptr}, rows, (int)threads);
}
