// Causal attention of grouped queries over a cache that is written in place.
//
// A prompt's chunk: the lanes of a register are queries (tokens times the heads of a group), so
// maxima, exponentials and sums need no steps across lanes, and every key and value is a broadcast
// operand. Keys come in tiles of 64 from the beginning of the sequence whatever the chunk is, so a
// token's result does not depend on how its prompt was divided (online softmax: Milakov and
// Gimelshein 2018; tiles: Dao et al. 2022).
//
// One token a sequence: reading the cache is what it costs. The lanes are neighbouring numbers of a
// key or a value, which is read once for all heads of its group.
//
// Arithmetic is in float32 whatever the cache holds.
#include "attention.h"

#include <string.h>

#include "simd.h"

namespace TANDEM_ISA {
namespace {

constexpr size_t TILE = 64;           // keys looked at together
constexpr size_t LANES = 2 * WIDTH;   // queries computed together, in two registers
constexpr size_t STEP = 8;            // broadcast operands per loop; 16 sums in registers
constexpr float LOWEST = -__builtin_inff();

template <typename Number>
struct Cache {
  Number* keys;    // [capacity, size] of one sequence and head
  Number* values;
  size_t length;  // valid rows after the run
};

template <typename Number>
INLINE Cache<Number> cache_of(const Attention& work, size_t sequence, size_t kv_head) {
  const size_t at = (sequence * work.kv_heads + kv_head) * work.capacity * work.size;
  return {static_cast<Number*>(work.keys) + at, static_cast<Number*>(work.values) + at,
          size_t(work.lengths[sequence]) + 1};
}

template <typename Number>
INLINE void copy_row(const float* from, size_t size, Number* to) {
  for (size_t i = 0; i < size; i += WIDTH) store(to + i, load(from + i));
}

template <typename Number>
void append_to(const Attention& work, size_t sequence, size_t kv_head) {
  const Cache<Number> cache = cache_of<Number>(work, sequence, kv_head);
  const size_t past = cache.length - work.tokens;
  for (size_t token = 0; token < work.tokens; token++) {
    const size_t from = ((sequence * work.tokens + token) * work.kv_heads + kv_head) * work.size;
    const size_t to = (past + token) * work.size;
    copy_row(work.key + from, work.size, cache.keys + to);
    copy_row(work.value + from, work.size, cache.values + to);
  }
}

void append(const Attention& work, size_t sequence, size_t kv_head) {
  if (work.half)
    append_to<_Float16>(work, sequence, kv_head);
  else
    append_to<float>(work, sequence, kv_head);
}

size_t group_of(const Attention& work) { return work.heads / work.kv_heads; }

// ---------------------------------------------------------------------------------------------
// Chunks

// Tokens whose heads of one group fill the lanes.
size_t block_tokens(const Attention& work) { return LANES / group_of(work); }

size_t blocks_of(const Attention& work) {
  return (work.tokens + block_tokens(work) - 1) / block_tokens(work);
}

// The working memory of one block of queries.
struct Block {
  float* queries;  // [size, LANES]
  float* sums;     // [size, LANES], of weighted values
  float* scores;   // [TILE, LANES]
  float* rows;     // [TILE, size], keys or values in float32
  Floats positions[2], highest[2], totals[2];
};

INLINE const float* in_floats(const float* rows, size_t, float*) { return rows; }
INLINE const float* in_floats(const _Float16* rows, size_t count, float* made) {
  for (size_t i = 0; i < count; i += WIDTH) store(made + i, load(rows + i));
  return made;
}

// scores[t] = keys[t] . queries for N keys
template <size_t N>
INLINE void score(const float* keys, size_t size, const float* queries, float* scores) {
  Floats made[N][2];
  for (size_t t = 0; t < N; t++) made[t][0] = made[t][1] = spread(0.0f);
  for (size_t d = 0; d < size; d++) {
    const Floats low = load(queries + d * LANES), high = load(queries + d * LANES + WIDTH);
#pragma unroll
    for (size_t t = 0; t < N; t++) {
      const Floats key = spread(keys[t * size + d]);
      made[t][0] = fma(key, low, made[t][0]);
      made[t][1] = fma(key, high, made[t][1]);
    }
  }
  for (size_t t = 0; t < N; t++) {
    store(scores + t * LANES, made[t][0]);
    store(scores + t * LANES + WIDTH, made[t][1]);
  }
}

// Turns the scores of a tile into weights; returns what earlier sums are to be multiplied with.
INLINE void weigh(Block& block, size_t first, size_t count, bool is_masked, Floats (&faded)[2]) {
  for (int half = 0; half < 2; half++) {
    float* scores = block.scores + half * WIDTH;
    Floats highest = block.highest[half];
    for (size_t t = 0; t < count; t++) {
      Floats score = load(scores + t * LANES);
      if (is_masked) {
        score = where_at_most(spread(float(first + t)), block.positions[half], score);
        store(scores + t * LANES, score);
      }
      highest = max(highest, score);
    }
    faded[half] = exp(sub(block.highest[half], highest));
    Floats total = mul(block.totals[half], faded[half]);
    for (size_t t = 0; t < count; t++) {
      const Floats weight = exp(sub(load(scores + t * LANES), highest));
      store(scores + t * LANES, weight);
      total = add(total, weight);
    }
    block.highest[half] = highest;
    block.totals[half] = total;
  }
}

// sums[d] = sums[d] * faded + values[:, d] . weights
INLINE void gather(const Block& block, const float* values, size_t size, size_t count,
                   const Floats (&faded)[2]) {
  for (size_t d = 0; d < size; d += STEP) {
    Floats made[STEP][2];
#pragma unroll
    for (size_t j = 0; j < STEP; j++)
      for (int half = 0; half < 2; half++)
        made[j][half] = mul(load(block.sums + (d + j) * LANES + half * WIDTH), faded[half]);
    for (size_t t = 0; t < count; t++) {
      const Floats low = load(block.scores + t * LANES);
      const Floats high = load(block.scores + t * LANES + WIDTH);
#pragma unroll
      for (size_t j = 0; j < STEP; j++) {
        const Floats value = spread(values[t * size + d + j]);
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
void attend_block(const Attention& work, size_t kv_head, size_t index, float* scratch) {
  const size_t size = work.size, group = group_of(work), first = index * block_tokens(work);
  const size_t left = work.tokens - first;
  const size_t tokens = left < block_tokens(work) ? left : block_tokens(work);
  const Cache<Number> cache = cache_of<Number>(work, 0, kv_head);
  const size_t past = cache.length - work.tokens;
  Block block;
  block.queries = scratch;
  block.sums = block.queries + size * LANES;
  block.scores = block.sums + size * LANES;
  block.rows = block.scores + TILE * LANES;
  memset(scratch, 0, 2 * size * LANES * sizeof(float));
  float positions[LANES];
  for (size_t lane = 0; lane < LANES; lane++)  // lanes without a query look at one key
    positions[lane] = lane < tokens * group ? float(past + first + lane / group) : 0.0f;
  for (size_t lane = 0; lane < tokens * group; lane++) {
    const size_t head = kv_head * group + lane % group;
    const float* query = work.query + ((first + lane / group) * work.heads + head) * size;
    for (size_t d = 0; d < size; d++) block.queries[d * LANES + lane] = query[d] * work.scale;
  }
  for (int half = 0; half < 2; half++) {
    block.positions[half] = load(positions + half * WIDTH);
    block.highest[half] = spread(LOWEST);
    block.totals[half] = spread(0.0f);
  }
  const size_t stop = past + first + tokens;  // the last query's own key is the last one seen
  for (size_t at = 0; at < stop; at += TILE) {
    const size_t count = stop - at < TILE ? stop - at : TILE;
    const float* keys = in_floats(cache.keys + at * size, count * size, block.rows);
    size_t t = 0;
    for (; t + STEP <= count; t += STEP)
      score<STEP>(keys + t * size, size, block.queries, block.scores + t * LANES);
    for (; t < count; t++)
      score<1>(keys + t * size, size, block.queries, block.scores + t * LANES);
    Floats faded[2];
    weigh(block, at, count, at + count > past + first, faded);
    const float* values = in_floats(cache.values + at * size, count * size, block.rows);
    gather(block, values, size, count, faded);
  }
  float totals[LANES];
  for (int half = 0; half < 2; half++) store(totals + half * WIDTH, block.totals[half]);
  for (size_t lane = 0; lane < tokens * group; lane++) {
    const size_t head = kv_head * group + lane % group;
    float* out = work.out + ((first + lane / group) * work.heads + head) * size;
    const float inverse = 1.0f / totals[lane];
    for (size_t d = 0; d < size; d++) out[d] = block.sums[d * LANES + lane] * inverse;
  }
}

// ---------------------------------------------------------------------------------------------
// One token a sequence

// scores[head][t] = keys[t] . queries[head], for T keys and H heads
template <size_t T, size_t H, typename Number>
INLINE void score_rows(const Number* keys, size_t size, const float* queries, float* scores,
                       size_t stride) {
  Floats made[T][H];
  for (size_t t = 0; t < T; t++)
    for (size_t h = 0; h < H; h++) made[t][h] = spread(0.0f);
  for (size_t d = 0; d < size; d += WIDTH)
#pragma unroll
    for (size_t t = 0; t < T; t++) {
      const Floats key = load(keys + t * size + d);
#pragma unroll
      for (size_t h = 0; h < H; h++) made[t][h] = fma(key, load(queries + h * size + d), made[t][h]);
    }
  for (size_t t = 0; t < T; t++)
    for (size_t h = 0; h < H; h++) scores[h * stride + t] = sum(made[t][h]);
}

template <size_t H, typename Number>
INLINE void score_heads(const Number* keys, size_t count, size_t size, const float* queries,
                        float* scores, size_t stride) {
  size_t t = 0;
  for (; t + 4 <= count; t += 4)
    score_rows<4, H>(keys + t * size, size, queries, scores + t, stride);
  for (; t < count; t++) score_rows<1, H>(keys + t * size, size, queries, scores + t, stride);
}

// out[head] += weights[head] . values, for H heads
template <size_t H, typename Number>
INLINE void gather_heads(const Number* values, size_t count, size_t size, const float* weights,
                         size_t stride, float* out) {
  constexpr size_t PARTS = 4;
  size_t d = 0;
  for (; d + PARTS * WIDTH <= size; d += PARTS * WIDTH) {
    Floats made[H][PARTS];
#pragma unroll
    for (size_t h = 0; h < H; h++)
      for (size_t p = 0; p < PARTS; p++) made[h][p] = load(out + h * size + d + p * WIDTH);
    for (size_t t = 0; t < count; t++)
#pragma unroll
      for (size_t p = 0; p < PARTS; p++) {
        const Floats value = load(values + t * size + d + p * WIDTH);
#pragma unroll
        for (size_t h = 0; h < H; h++)
          made[h][p] = fma(value, spread(weights[h * stride + t]), made[h][p]);
      }
#pragma unroll
    for (size_t h = 0; h < H; h++)
      for (size_t p = 0; p < PARTS; p++) store(out + h * size + d + p * WIDTH, made[h][p]);
  }
  for (; d < size; d += WIDTH)
    for (size_t h = 0; h < H; h++) {
      Floats made = load(out + h * size + d);
      for (size_t t = 0; t < count; t++)
        made = fma(load(values + t * size + d), spread(weights[h * stride + t]), made);
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

// Exponentials of a row of scores less their maximum, in place; returns their sum.
INLINE float exponentials(float* scores, size_t count) {
  Floats highest = spread(LOWEST), total = spread(0.0f);
  const size_t padded = (count + WIDTH - 1) / WIDTH * WIDTH;
  for (size_t t = count; t < padded; t++) scores[t] = LOWEST;
  for (size_t t = 0; t < padded; t += WIDTH) highest = max(highest, load(scores + t));
  highest = spread(peak(highest));
  for (size_t t = 0; t < padded; t += WIDTH) {
    const Floats weight = exp(sub(load(scores + t), highest));
    store(scores + t, weight);
    total = add(total, weight);
  }
  return sum(total);
}

size_t score_stride(const Attention& work) {
  size_t longest = 0;
  for (size_t s = 0; s < work.sequences; s++)
    if (size_t(work.lengths[s]) + 1 > longest) longest = size_t(work.lengths[s]) + 1;
  return (longest + LANES - 1) / LANES * LANES;
}

template <typename Number>
void attend_token(const Attention& work, size_t sequence, size_t kv_head, float* scratch) {
  const size_t size = work.size, group = group_of(work), stride = score_stride(work);
  const Cache<Number> cache = cache_of<Number>(work, sequence, kv_head);
  const size_t first = (sequence * work.heads + kv_head * group) * size;
  float* queries = scratch;
  float* scores = queries + group * size;
  float* out = work.out + first;
  for (size_t i = 0; i < group * size; i += WIDTH)
    store(queries + i, mul(load(work.query + first + i), spread(work.scale)));
  for (size_t at = 0; at < cache.length; at += TILE) {
    const size_t count = cache.length - at < TILE ? cache.length - at : TILE;
    by_heads(group, [&]<size_t H>(size_t head) __attribute__((always_inline)) {
      score_heads<H>(cache.keys + at * size, count, size, queries + head * size,
                     scores + head * stride + at, stride);
    });
  }
  float totals[LANES];
  for (size_t head = 0; head < group; head++)
    totals[head] = exponentials(scores + head * stride, cache.length);
  memset(out, 0, group * size * sizeof(float));
  for (size_t at = 0; at < cache.length; at += TILE) {
    const size_t count = cache.length - at < TILE ? cache.length - at : TILE;
    by_heads(group, [&]<size_t H>(size_t head) __attribute__((always_inline)) {
      gather_heads<H>(cache.values + at * size, count, size, scores + head * stride + at, stride,
                      out + head * size);
    });
  }
  for (size_t head = 0; head < group; head++)
    for (size_t d = 0; d < size; d += WIDTH) {
      float* at = out + head * size + d;
      store(at, mul(load(at), spread(1.0f / totals[head])));
    }
}

// ---------------------------------------------------------------------------------------------

size_t parts(const Attention& work) {
  return work.kv_heads * (work.tokens == 1 ? work.sequences : blocks_of(work));
}

size_t scratch_floats(const Attention& work) {
  if (work.tokens == 1) return group_of(work) * (work.size + score_stride(work));
  return 2 * work.size * LANES + TILE * (LANES + work.size);
}

template <typename Number>
void compute_as(const Attention& work, size_t part, float* scratch) {
  const size_t kv_head = part % work.kv_heads, index = part / work.kv_heads;
  if (work.tokens == 1) return attend_token<Number>(work, index, kv_head, scratch);
  // The last block sees most keys: it goes first, so that threads end together.
  attend_block<Number>(work, kv_head, blocks_of(work) - 1 - index, scratch);
}

void compute(const Attention& work, size_t part, float* scratch) {
  if (work.half)
    compute_as<_Float16>(work, part, scratch);
  else
    compute_as<float>(work, part, scratch);
}

}  // namespace

const AttentionKernel ATTENTION = {append, parts, scratch_floats, compute};

}  // namespace TANDEM_ISA
