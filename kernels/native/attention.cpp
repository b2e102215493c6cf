// Causal attention of grouped queries over a cache that is written in place, from the product of
// the hidden states with the joined query, key and value weights: RMS norms per head, rotary
// positions, the cache, softmax(QK)V. A run holds segments: new tokens of any number of sequences.
//
// Source: transformers Qwen3VLTextAttention.forward.
//
// Segments of several tokens: the lanes of a register are queries (tokens times the heads of a
// group), so maxima, exponentials and sums need no steps across lanes, and every key and value is a
// broadcast operand. Keys come in tiles of 64 from the beginning of the sequence whatever the chunk
// is, so a token's result does not depend on how its prompt was divided (online softmax: Milakov
// and Gimelshein 2018; tiles: Dao et al. 2022).
//
// Segments of one token: reading the cache is what they cost. The lanes are neighbouring numbers of
// a key or a value, which is read once for all heads of its group.
//
// Arithmetic is in float32 whatever the cache holds.
#include "attention.h"

#include <string.h>

#include "simd.h"

namespace TANDEM_ISA {
namespace {

constexpr size_t TILE = 64;          // keys that several tokens look at together
constexpr size_t SPAN = 128;         // keys that one token looks at together: they fit a core's cache
constexpr size_t LANES = 2 * WIDTH;  // queries computed together, in two registers
constexpr size_t STEP = 8;           // broadcast operands per loop; 16 sums in registers
constexpr float LOWEST = -__builtin_inff();
// Bytes between the row that is read and the one that is asked for: one token reads its cache
// faster than the processor's own prefetching brings it.
constexpr size_t AHEAD = 1536;
static_assert(MOST_GROUPED_HEADS <= LANES, "a block holds at least one token of a group");

// Asks for the cache lines of `bytes` bytes, some way ahead of what is being read.
INLINE void prefetch(const void* at, size_t bytes) {
  const char* from = static_cast<const char*>(at) + AHEAD;
  for (size_t line = 0; line < bytes; line += 64) _mm_prefetch(from + line, _MM_HINT_T0);
}

// One slot's rows of one head, [capacity, size] each.
template <typename Number>
struct Cache {
  Number* keys;
  Number* values;
};

template <typename Number>
INLINE Cache<Number> cache_of(const Attention& work, size_t slot, size_t kv_head) {
  const size_t at = (slot * work.kv_heads + kv_head) * work.capacity * work.size;
  return {static_cast<Number*>(work.keys) + at, static_cast<Number*>(work.values) + at};
}

// ---------------------------------------------------------------------------------------------
// Norms and positions

// out = rotated(x / rms(x) * weight); the halves of a head are the parts of its complex numbers.
// Products are rounded before they are added, as the model's authors' code does: the same numbers
// wherever possible.
INLINE void norm_and_rotate(const Attention& work, const float* x, const float* weight, size_t row,
                          float* out) {
#pragma clang fp contract(off)
  Floats squares = broadcast(0.0f);
  for (size_t d = 0; d < work.size; d += WIDTH) {
    const Floats part = load(x + d);
    squares = fma(part, part, squares);
  }
  const size_t half = work.size / 2;
  const float inverse = 1.0f / __builtin_sqrtf(sum(squares) / float(work.size) + work.epsilon);
  const float *cosines = work.cosines + row * half, *sines = work.sines + row * half;
  for (size_t d = 0; d < half; d++) {
    const float real = x[d] * inverse * weight[d];
    const float imaginary = x[half + d] * inverse * weight[half + d];
    out[d] = real * cosines[d] - imaginary * sines[d];
    out[half + d] = imaginary * cosines[d] + real * sines[d];
  }
}

INLINE void copy(const float* from, size_t size, float* to) {
  memcpy(to, from, size * sizeof(float));
}

// What float16 cannot hold becomes the most it can, not infinity; a NaN stays one (the second
// operand is given back), so that the sequence it belongs to is found out.
INLINE void copy(const float* from, size_t size, _Float16* to) {
  const Floats most = broadcast(65504.0f), least = broadcast(-65504.0f);
  for (size_t i = 0; i < size; i += WIDTH) store(to + i, min(most, max(least, load(from + i))));
}

template <typename Number>
INLINE void prepare_as(const Attention& work, const Segment& segment, size_t token, size_t row) {
  const size_t size = work.size;
  const float* joined = work.joined + row * (work.heads + 2 * work.kv_heads) * size;
  for (size_t head = 0; head < work.heads; head++)
    norm_and_rotate(work, joined + head * size, work.query_norm, row,
                  work.queries + (row * work.heads + head) * size);
  const float* keys = joined + work.heads * size;
  const float* values = keys + work.kv_heads * size;
  const size_t at = (segment.past + token) * size;
  for (size_t head = 0; head < work.kv_heads; head++) {
    const Cache<Number> cache = cache_of<Number>(work, segment.slot, head);
    float key[MOST_HEAD_DIM];
    norm_and_rotate(work, keys + head * size, work.key_norm, row, key);
    copy(key, size, cache.keys + at);
    copy(values + head * size, size, cache.values + at);
  }
}

void prepare(const Attention& work, const Segment& segment, size_t token, size_t row) {
  if (work.half)
    prepare_as<_Float16>(work, segment, token, row);
  else
    prepare_as<float>(work, segment, token, row);
}

size_t group_of(const Attention& work) { return work.heads / work.kv_heads; }

// ---------------------------------------------------------------------------------------------
// Several tokens of a segment

// Tokens whose heads of one group fill the lanes.
size_t block_tokens(const Attention& work) { return LANES / group_of(work); }

// The working memory of one block of queries, some 140 KB of the stack.
struct Block {
  alignas(64) float queries[MOST_HEAD_DIM * LANES];  // [size, LANES]
  alignas(64) float sums[MOST_HEAD_DIM * LANES];     // [size, LANES], of weighted values
  alignas(64) float scores[TILE * LANES];        // [TILE, LANES]
  alignas(64) float rows[TILE * MOST_HEAD_DIM];      // [TILE, size], keys or values in float32
  Floats positions[2], highest[2], totals[2];
};

INLINE const float* in_floats(const float* rows, size_t, float*) { return rows; }
INLINE const float* in_floats(const _Float16* rows, size_t count, float* made) {
  for (size_t i = 0; i < count; i += WIDTH) store(made + i, load(rows + i));
  return made;
}

// scores[t] = keys[t] . queries * scale for N keys
template <size_t N>
INLINE void score(const float* keys, size_t size, const float* queries, float scale,
                  float* scores) {
  Floats made[N][2];
  for (size_t t = 0; t < N; t++) made[t][0] = made[t][1] = broadcast(0.0f);
  for (size_t d = 0; d < size; d++) {
    const Floats low = load(queries + d * LANES), high = load(queries + d * LANES + WIDTH);
#pragma unroll
    for (size_t t = 0; t < N; t++) {
      const Floats key = broadcast(keys[t * size + d]);
      made[t][0] = fma(key, low, made[t][0]);
      made[t][1] = fma(key, high, made[t][1]);
    }
  }
  for (size_t t = 0; t < N; t++) {
    store(scores + t * LANES, mul(made[t][0], broadcast(scale)));
    store(scores + t * LANES + WIDTH, mul(made[t][1], broadcast(scale)));
  }
}

// Turns the scores of a tile into weights; returns what earlier sums are to be multiplied with.
INLINE void softmax_tile(Block& block, size_t first, size_t count, bool is_masked,
                         Floats (&rescale)[2]) {
  for (int half = 0; half < 2; half++) {
    float* scores = block.scores + half * WIDTH;
    Floats highest = block.highest[half];
    for (size_t t = 0; t < count; t++) {
      Floats score = load(scores + t * LANES);
      if (is_masked) {
        score = where_at_most(broadcast(float(first + t)), block.positions[half], score);
        store(scores + t * LANES, score);
      }
      highest = max(highest, score);
    }
    rescale[half] = exp(sub(block.highest[half], highest));
    Floats total = mul(block.totals[half], rescale[half]);
    for (size_t t = 0; t < count; t++) {
      const Floats weight = exp(sub(load(scores + t * LANES), highest));
      store(scores + t * LANES, weight);
      total = add(total, weight);
    }
    block.highest[half] = highest;
    block.totals[half] = total;
  }
}

// sums[d] = sums[d] * rescale + values[:, d] . weights
INLINE void accumulate_values(Block& block, const float* values, size_t size, size_t count,
                              const Floats (&rescale)[2]) {
  for (size_t d = 0; d < size; d += STEP) {
    Floats made[STEP][2];
#pragma unroll
    for (size_t j = 0; j < STEP; j++)
      for (int half = 0; half < 2; half++)
        made[j][half] = mul(load(block.sums + (d + j) * LANES + half * WIDTH), rescale[half]);
    for (size_t t = 0; t < count; t++) {
      const Floats low = load(block.scores + t * LANES);
      const Floats high = load(block.scores + t * LANES + WIDTH);
#pragma unroll
      for (size_t j = 0; j < STEP; j++) {
        const Floats value = broadcast(values[t * size + d + j]);
        made[j][0] = fma(value, low, made[j][0]);
        made[j][1] = fma(value, high, made[j][1]);
      }
    }
#pragma unroll
    for (size_t j = 0; j < STEP; j++)
      for (int half = 0; half < 2; half++)
        store(block.sums + (d + j) * LANES + half * WIDTH, made[j][half]);
  }
}

template <typename Number>
void attend_block(const Attention& work, const Part& part) {
  const size_t size = work.size, group = group_of(work), past = part.segment.past;
  const size_t first = part.block * block_tokens(work), left = part.segment.tokens - first;
  const size_t tokens = left < block_tokens(work) ? left : block_tokens(work);
  const Cache<Number> cache = cache_of<Number>(work, part.segment.slot, part.kv_head);
  // Queries and results of a lane: its token's row, its head of the group.
  const auto place = [&](size_t lane) {
    const size_t row = part.first + first + lane / group;
    return (row * work.heads + part.kv_head * group + lane % group) * size;
  };
  Block block;
  memset(block.queries, 0, size * LANES * sizeof(float));
  memset(block.sums, 0, size * LANES * sizeof(float));
  float positions[LANES];
  for (size_t lane = 0; lane < LANES; lane++)  // lanes without a query look at one key
    positions[lane] = lane < tokens * group ? float(past + first + lane / group) : 0.0f;
  for (size_t lane = 0; lane < tokens * group; lane++) {
    const float* query = work.queries + place(lane);
    for (size_t d = 0; d < size; d++) block.queries[d * LANES + lane] = query[d];
  }
  for (int half = 0; half < 2; half++) {
    block.positions[half] = load(positions + half * WIDTH);
    block.highest[half] = broadcast(LOWEST);
    block.totals[half] = broadcast(0.0f);
  }
  const size_t stop = past + first + tokens;  // the last query's own key is the last one seen
  for (size_t at = 0; at < stop; at += TILE) {
    const size_t count = stop - at < TILE ? stop - at : TILE;
    const float* keys = in_floats(cache.keys + at * size, count * size, block.rows);
    size_t t = 0;
    for (; t + STEP <= count; t += STEP)
      score<STEP>(keys + t * size, size, block.queries, work.scale, block.scores + t * LANES);
    for (; t < count; t++)
      score<1>(keys + t * size, size, block.queries, work.scale, block.scores + t * LANES);
    Floats rescale[2];
    softmax_tile(block, at, count, at + count > past + first, rescale);
    const float* values = in_floats(cache.values + at * size, count * size, block.rows);
    accumulate_values(block, values, size, count, rescale);
  }
  float totals[LANES];
  for (int half = 0; half < 2; half++) store(totals + half * WIDTH, block.totals[half]);
  for (size_t lane = 0; lane < tokens * group; lane++) {
    float* out = work.out + place(lane);
    const float inverse = 1.0f / totals[lane];
    for (size_t d = 0; d < size; d++) out[d] = block.sums[d * LANES + lane] * inverse;
  }
}

// ---------------------------------------------------------------------------------------------
// The only token of a segment

// scores[head][t] = keys[t] . queries[head] * scale, for T keys and H heads
template <size_t T, size_t H, typename Number>
INLINE void score_rows(const Number* keys, size_t size, const float* queries, float scale,
                       float* scores, size_t stride) {
  Floats made[T][H];
  for (size_t t = 0; t < T; t++)
    for (size_t h = 0; h < H; h++) made[t][h] = broadcast(0.0f);
  prefetch(keys, T * size * sizeof(Number));
  for (size_t d = 0; d < size; d += WIDTH)
#pragma unroll
    for (size_t t = 0; t < T; t++) {
      const Floats key = load(keys + t * size + d);
#pragma unroll
      for (size_t h = 0; h < H; h++)
        made[t][h] = fma(key, load(queries + h * size + d), made[t][h]);
    }
  for (size_t t = 0; t < T; t++)
    for (size_t h = 0; h < H; h++) scores[h * stride + t] = sum(made[t][h]) * scale;
}

template <size_t H, typename Number>
INLINE void score_heads(const Number* keys, size_t count, size_t size, const float* queries,
                        float scale, float* scores, size_t stride) {
  size_t t = 0;
  for (; t + 4 <= count; t += 4)
    score_rows<4, H>(keys + t * size, size, queries, scale, scores + t, stride);
  for (; t < count; t++)
    score_rows<1, H>(keys + t * size, size, queries, scale, scores + t, stride);
}

// out[head] += weights[head] . values, for H heads
template <size_t H, typename Number>
INLINE void accumulate_heads(const Number* values, size_t count, size_t size,
                             const float* weights, size_t stride, float* out) {
  constexpr size_t PARTS = 4;
  size_t d = 0;
  for (; d + PARTS * WIDTH <= size; d += PARTS * WIDTH) {
    Floats made[H][PARTS];
#pragma unroll
    for (size_t h = 0; h < H; h++)
      for (size_t p = 0; p < PARTS; p++) made[h][p] = load(out + h * size + d + p * WIDTH);
    for (size_t t = 0; t < count; t++) {
      prefetch(values + t * size + d, PARTS * WIDTH * sizeof(Number));
#pragma unroll
      for (size_t p = 0; p < PARTS; p++) {
        const Floats value = load(values + t * size + d + p * WIDTH);
#pragma unroll
        for (size_t h = 0; h < H; h++)
          made[h][p] = fma(value, broadcast(weights[h * stride + t]), made[h][p]);
      }
    }
#pragma unroll
    for (size_t h = 0; h < H; h++)
      for (size_t p = 0; p < PARTS; p++) store(out + h * size + d + p * WIDTH, made[h][p]);
  }
  for (; d < size; d += WIDTH)
    for (size_t h = 0; h < H; h++) {
      Floats made = load(out + h * size + d);
      for (size_t t = 0; t < count; t++)
        made = fma(load(values + t * size + d), broadcast(weights[h * stride + t]), made);
      store(out + h * size + d, made);
    }
}

// Calls work(H, first head) for a group in steps of 4, 2 and 1 heads.
template <typename Work>
INLINE void by_heads(size_t group, Work&& work) {
  size_t head = 0;
  for (; head + 4 <= group; head += 4) work.template operator()<4>(head);
  for (; head + 2 <= group; head += 2) work.template operator()<2>(head);
  for (; head < group; head++) work.template operator()<1>(head);
}

INLINE float highest_of(float* scores, size_t count) {
  Floats highest = broadcast(LOWEST);
  const size_t padded = (count + WIDTH - 1) / WIDTH * WIDTH;
  for (size_t t = count; t < padded; t++) scores[t] = LOWEST;
  for (size_t t = 0; t < padded; t += WIDTH) highest = max(highest, load(scores + t));
  return peak(highest);
}

// Exponentials of scores less the highest, in place; returns their sum.
INLINE float exponentials(float* scores, size_t count, float highest) {
  Floats total = broadcast(0.0f);
  for (size_t t = 0; t < count; t += WIDTH) {
    const Floats weight = exp(sub(load(scores + t), broadcast(highest)));
    store(scores + t, weight);
    total = add(total, weight);
  }
  return sum(total);
}

INLINE void scale_by(float* values, size_t count, float factor) {
  for (size_t i = 0; i < count; i += WIDTH)
    store(values + i, mul(load(values + i), broadcast(factor)));
}

template <typename Number>
void attend_token(const Attention& work, const Part& part) {
  const size_t size = work.size, group = group_of(work), length = part.segment.past + 1;
  const Cache<Number> cache = cache_of<Number>(work, part.segment.slot, part.kv_head);
  const size_t first = (part.first * work.heads + part.kv_head * group) * size;
  const float* queries = work.queries + first;
  float* out = work.out + first;
  alignas(64) float scores[LANES * SPAN];  // [group, SPAN]
  float highest[LANES], totals[LANES];
  for (size_t head = 0; head < group; head++) {
    highest[head] = LOWEST;
    totals[head] = 0.0f;
  }
  memset(out, 0, group * size * sizeof(float));
  for (size_t at = 0; at < length; at += SPAN) {
    const size_t count = length - at < SPAN ? length - at : SPAN;
    by_heads(group, [&]<size_t H>(size_t head) __attribute__((always_inline)) {
      score_heads<H>(cache.keys + at * size, count, size, queries + head * size,
                     work.scale, scores + head * SPAN, SPAN);
    });
    for (size_t head = 0; head < group; head++) {
      const float most = highest_of(scores + head * SPAN, count);
      const float higher = most > highest[head] ? most : highest[head];
      const float rescale = sum(exp(broadcast(highest[head] - higher))) / WIDTH;
      totals[head] = totals[head] * rescale + exponentials(scores + head * SPAN, count, higher);
      scale_by(out + head * size, size, rescale);
      highest[head] = higher;
    }
    by_heads(group, [&]<size_t H>(size_t head) __attribute__((always_inline)) {
      accumulate_heads<H>(cache.values + at * size, count, size, scores + head * SPAN, SPAN,
                      out + head * size);
    });
  }
  for (size_t head = 0; head < group; head++)
    scale_by(out + head * size, size, 1.0f / totals[head]);
}

// ---------------------------------------------------------------------------------------------

template <typename Number>
INLINE void compute_as(const Attention& work, const Part& part) {
  if (part.segment.tokens == 1)
    attend_token<Number>(work, part);
  else
    attend_block<Number>(work, part);
}

void compute(const Attention& work, const Part& part) {
  if (work.half)
    compute_as<_Float16>(work, part);
  else
    compute_as<float>(work, part);
}

}  // namespace

const AttentionKernel ATTENTION = {prepare, block_tokens, compute};

}  // namespace TANDEM_ISA
