// Attention of a segment's several tokens, a block of them at a time.
//
// The lanes of a register are queries (tokens times the heads of a group), so maxima, exponentials
// and sums need no steps across lanes, and every key and value is a broadcast operand. Keys come in
// tiles of 64 from the beginning of the sequence whatever the chunk is, so a token's result does
// not depend on how its prompt was divided (online softmax: Milakov and Gimelshein 2018; tiles: Dao
// et al. 2022).
#pragma once
#include <string.h>

#include "attention_cache.h"

namespace TANDEM_ISA {
namespace {

constexpr size_t TILE = 64;  // keys looked at together
constexpr size_t STEP = 8;   // broadcast operands per loop; 16 sums in registers

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

}  // namespace
}  // namespace TANDEM_ISA
