// What the tower's attention in float32 does besides its two products: queries in lanes, softmax
// over tiles of keys, and the results' way out of the lanes.
#pragma once
#include <string.h>

#include "simd.h"
#include "tower_attention.h"

namespace TANDEM_ISA {

constexpr size_t LANES = 2 * WIDTH;  // queries computed together
constexpr size_t MOST_SIZE = 256;    // of a head
constexpr float LOWEST = -__builtin_inff();

// The working memory of one part, on the stack.
template <size_t TILE>  // keys looked at together
struct Block {
  alignas(64) float queries[MOST_SIZE * LANES];  // [size, LANES]
  alignas(64) float sums[MOST_SIZE * LANES];     // [size, LANES], of weighted values
  alignas(64) float scores[TILE * LANES];        // [TILE, LANES]
  Floats highest[2], totals[2];
};

// Queries with the softmax's scale in them, and empty sums. Lanes without a query repeat the last.
template <size_t TILE>
INLINE void begin(const TowerAttention& work, const TowerPart& part, size_t lanes,
                  Block<TILE>& block) {
  const size_t size = work.size, width = work.heads * size;
  const float scale = 1.0f / __builtin_sqrtf(float(size));
  float turned[MOST_SIZE];
  for (size_t lane = 0; lane < LANES; lane++) {
    const size_t patch = part.first + (lane < lanes ? lane : lanes - 1);
    rotate(work, work.joined + patch * 3 * width + part.head * size, patch, turned);
    for (size_t d = 0; d < size; d++) block.queries[d * LANES + lane] = turned[d] * scale;
  }
  memset(block.sums, 0, size * LANES * sizeof(float));
  for (int half = 0; half < 2; half++) {
    block.highest[half] = broadcast(LOWEST);
    block.totals[half] = broadcast(0.0f);
  }
}

// Turns the scores of a tile into weights; returns what earlier sums are to be multiplied with.
template <size_t TILE>
INLINE void weigh(Block<TILE>& block, size_t count, Floats (&faded)[2]) {
  for (int half = 0; half < 2; half++) {
    float* scores = block.scores + half * WIDTH;
    Floats highest = block.highest[half];
    for (size_t t = 0; t < count; t++) highest = max(highest, load(scores + t * LANES));
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

template <size_t TILE>
INLINE void finish(const TowerAttention& work, const TowerPart& part, size_t lanes,
                   Block<TILE>& block) {
  const size_t size = work.size, width = work.heads * size;
  const Floats inverse[2] = {div(broadcast(1.0f), block.totals[0]),
                             div(broadcast(1.0f), block.totals[1])};
  for (size_t d = 0; d < size; d++)
    for (int half = 0; half < 2; half++) {
      float* sums = block.sums + d * LANES + half * WIDTH;
      store(sums, mul(load(sums), inverse[half]));
    }
  for (size_t lane = 0; lane < lanes; lane++) {
    float* out = work.out + (part.first + lane) * width + part.head * size;
    for (size_t d = 0; d < size; d++) out[d] = block.sums[d * LANES + lane];
  }
}

}  // namespace TANDEM_ISA
