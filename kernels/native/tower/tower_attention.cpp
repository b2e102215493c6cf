// Attention of the vision tower: every patch of a segment (a frame of an image) attends to all
// patches of the segment, in float32.
//
// Source: transformers Qwen3VLVisionAttention.forward.
//
// The lanes of two registers are queries, so maxima, exponentials and sums need no steps across
// lanes, and every key and value is a broadcast operand that serves all of them. Keys come in
// tiles that stay in the first cache (online softmax: Milakov and Gimelshein 2018; tiles: Dao et
// al. 2022). A patch's result depends on its segment alone, whatever is computed beside it.
#include "tower_attention.h"

#include <string.h>

#include "simd.h"
#include "tower_attention_block.h"

namespace TANDEM_ISA {
namespace {

constexpr size_t TILE = 48;                      // keys looked at together
constexpr size_t KEYS = WIDTH == 16 ? 12 : 6;      // broadcast together: sums fill the registers
constexpr size_t NUMBERS = WIDTH == 16 ? 8 : 6;    // the same, of values

void prepare(const TowerAttention& work, size_t patch) {
  const size_t size = work.size, width = work.heads * size;
  const float* keys = work.joined + patch * 3 * width + width;
  for (size_t head = 0; head < work.heads; head++) {
    const size_t to = (head * work.patches + patch) * size;
    rotate(work, keys + head * size, patch, work.keys + to);
    memcpy(work.values + to, keys + width + head * size, size * sizeof(float));
  }
}

// scores[t] = keys[t] . queries for N keys
template <size_t N>
INLINE void score(const float* keys, size_t size, const float* queries, float* scores) {
  Floats made[N][2];
#pragma unroll
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
#pragma unroll
  for (size_t t = 0; t < N; t++) {
    store(scores + t * LANES, made[t][0]);
    store(scores + t * LANES + WIDTH, made[t][1]);
  }
}

template <size_t N>
void score_or_fewer(const float* keys, size_t count, size_t size, const float* queries,
                    float* scores) {
  if constexpr (N > 0) {
    if (count == N) return score<N>(keys, size, queries, scores);
    score_or_fewer<N - 1>(keys, count, size, queries, scores);
  }
}

// sums[d] = sums[d] * faded + values[:, d] . weights for N numbers of a head
template <size_t N>
INLINE void gather(const float* values, size_t size, size_t count, const float* weights,
                   const Floats (&faded)[2], float* sums) {
  Floats made[N][2];
#pragma unroll
  for (size_t j = 0; j < N; j++)
    for (int half = 0; half < 2; half++)
      made[j][half] = mul(load(sums + j * LANES + half * WIDTH), faded[half]);
  for (size_t t = 0; t < count; t++) {
    const Floats low = load(weights + t * LANES), high = load(weights + t * LANES + WIDTH);
#pragma unroll
    for (size_t j = 0; j < N; j++) {
      const Floats value = broadcast(values[t * size + j]);
      made[j][0] = fma(value, low, made[j][0]);
      made[j][1] = fma(value, high, made[j][1]);
    }
  }
#pragma unroll
  for (size_t j = 0; j < N; j++)
    for (int half = 0; half < 2; half++) store(sums + j * LANES + half * WIDTH, made[j][half]);
}

template <size_t N>
void gather_or_fewer(const float* values, size_t left, size_t size, size_t count,
                     const float* weights, const Floats (&faded)[2], float* sums) {
  if constexpr (N > 0) {
    if (left == N) return gather<N>(values, size, count, weights, faded, sums);
    gather_or_fewer<N - 1>(values, left, size, count, weights, faded, sums);
  }
}

INLINE void add_tile(const float* keys, const float* values, size_t size, size_t count,
                     Block<TILE>& block) {
  for (size_t t = 0; t < count; t += KEYS)
    score_or_fewer<KEYS>(keys + t * size, count - t < KEYS ? count - t : KEYS, size,
                         block.queries, block.scores + t * LANES);
  Floats faded[2];
  weigh(block, count, faded);
  for (size_t d = 0; d < size; d += NUMBERS)
    gather_or_fewer<NUMBERS>(values + d, size - d < NUMBERS ? size - d : NUMBERS, size, count,
                             block.scores, faded, block.sums + d * LANES);
}

void compute(const TowerAttention& work, const TowerPart& part) {
  Block<TILE> block;
  const size_t left = part.end - part.first, lanes = left < LANES ? left : LANES;
  begin(work, part, lanes, block);
  const size_t before = part.head * work.patches * work.size;
  for (size_t key = part.begin; key < part.end; key += TILE) {
    const size_t at = before + key * work.size;
    const size_t count = part.end - key < TILE ? part.end - key : TILE;
    add_tile(work.keys + at, work.values + at, work.size, count, block);
  }
  finish(work, part, lanes, block);
}

}  // namespace

const TowerAttentionKernel TOWER_ATTENTION = {LANES, prepare, compute};

}  // namespace TANDEM_ISA
