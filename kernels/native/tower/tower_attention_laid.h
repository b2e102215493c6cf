// How the tower's attention lays out queries, keys and values for matrix tiles, once a pass: steps
// of 32 patches by 32 numbers of a head, which tiles.h describes. Queries are rows; keys are
// columns of the scores' product, values are columns of the results'.
#pragma once
#include <string.h>

#include "tiles.h"
#include "tower_attention_block.h"
#include "tower_attention_tiles.h"

namespace TANDEM_ISA {

static_assert(TILED_KEYS == SIDE && PIECE_STEP == SIDE);

// What scores are multiplied with, so that `weight_of` them is the softmax's exponential.
template <size_t PIECES>
constexpr float UNIT = PIECES == EXACT ? 1.0f : 1.44269504f;

// Where the steps of a key tile begin in `queries` and `keys`, and one step of it in `values`.
template <size_t PIECES>
INLINE size_t place(const TowerAttentionTiled& work, size_t head, size_t tile) {
  return (head * work.key_tiles + tile) * work.steps * STEP_BYTES<PIECES>;
}
template <size_t PIECES>
INLINE uint8_t* values_at(const TowerAttentionTiled& work, size_t head, size_t step, size_t tile) {
  return work.values + ((head * work.steps + step) * work.key_tiles + tile) * STEP_BYTES<PIECES>;
}

// Source: Intel 64 and IA-32 Architectures Optimization Reference Manual, 18.5.
INLINE void transpose(Ints (&rows)[16]) {
  Ints pairs[16], fours[16];
  for (size_t i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  for (size_t i = 0; i < 16; i += 4)
    for (size_t j = 0; j < 2; j++) {
      fours[i + 2 * j] = _mm512_unpacklo_epi64(pairs[i + j], pairs[i + 2 + j]);
      fours[i + 2 * j + 1] = _mm512_unpackhi_epi64(pairs[i + j], pairs[i + 2 + j]);
    }
  // fours[4 * i + j]: rows 4 * i to 4 * i + 3 of columns j, j + 4, j + 8, j + 12
  for (size_t j = 0; j < 4; j++) {
    const Ints low[2] = {_mm512_shuffle_i32x4(fours[j], fours[4 + j], 0x88),
                         _mm512_shuffle_i32x4(fours[j], fours[4 + j], 0xdd)};
    const Ints high[2] = {_mm512_shuffle_i32x4(fours[8 + j], fours[12 + j], 0x88),
                          _mm512_shuffle_i32x4(fours[8 + j], fours[12 + j], 0xdd)};
    for (size_t odd = 0; odd < 2; odd++) {
      rows[j + 4 * odd] = _mm512_shuffle_i32x4(low[odd], high[odd], 0x88);
      rows[j + 4 * odd + 8] = _mm512_shuffle_i32x4(low[odd], high[odd], 0xdd);
    }
  }
}

// A step of rows becomes one of columns: two numbers are one of 32 bits.
template <size_t PIECES>
INLINE void turn_step(uint8_t* step) {
  for (uint8_t* tile = step; tile < step + STEP_BYTES<PIECES>; tile += TILE_BYTES) {
    Ints rows[TILE_ROWS];
    for (size_t i = 0; i < TILE_ROWS; i++) rows[i] = load_bytes(tile + i * TILE_ROW_BYTES);
    transpose(rows);
    for (size_t i = 0; i < TILE_ROWS; i++) _mm512_store_si512(tile + i * TILE_ROW_BYTES, rows[i]);
  }
}

[[maybe_unused]] static float* centre_of(const TowerAttentionTiled& work,
                                         const TowerTiledPart& tiled) {
  const size_t index = tiled.segment * work.base.heads + tiled.part.head;
  return work.centres + index * 2 * work.base.size;
}

// Means of keys and values over some patches of the segment: near the middle is good enough.
[[maybe_unused]] static void find_centre(const TowerAttentionTiled& work,
                                         const TowerTiledPart& tiled) {
  constexpr size_t SAMPLES = 32;
  const TowerPart& part = tiled.part;
  const size_t size = work.base.size, width = work.base.heads * size;
  const size_t count = part.end - part.begin, samples = count < SAMPLES ? count : SAMPLES;
  float* centre = centre_of(work, tiled);
  memset(centre, 0, 2 * size * sizeof(float));
  alignas(64) float key[MOST_SIZE];
  for (size_t i = 0; i < samples; i++) {
    const size_t patch = part.begin + i * count / samples;
    const float* from = work.base.joined + patch * 3 * width + width + part.head * size;
    rotate(work.base, from, patch, key);
    for (size_t d = 0; d < size; d++) {
      centre[d] += key[d] / float(samples);
      centre[size + d] += from[width + d] / float(samples);
    }
  }
}

// The patches of a key tile, and which head.
struct Patches {
  const TowerAttention& work;
  size_t head, first, count;

  // Queries (0), keys (1) or values (2) of one of them.
  const float* row(size_t index, size_t kind) const {
    const size_t width = work.heads * work.size;
    return work.joined + (first + index) * 3 * width + kind * width + head * work.size;
  }
};

// Queries or keys, turned by their positions, less `centre` where there is one and multiplied with
// `scale`, as rows; where there is no patch, zeros.
template <size_t PIECES>
INLINE void lay_rows(const Patches& patches, size_t kind, const float* centre, float scale,
                     size_t steps, uint8_t* to) {
  alignas(64) float numbers[MOST_SIZE] = {};
  const size_t size = patches.work.size;
  for (size_t row = 0; row < TILED_KEYS; row++) {
    if (row < patches.count)
      rotate(patches.work, patches.row(row, kind), patches.first + row, numbers);
    else
      memset(numbers, 0, size * sizeof(float));
    if (centre != nullptr && row < patches.count)
      for (size_t d = 0; d < size; d++) numbers[d] -= centre[d];
    for (size_t d = 0; d < size; d++) numbers[d] *= scale;
    for (size_t step = 0; step < steps; step++)
      store_row<PIECES>(numbers + step * PIECE_STEP, row, to + step * STEP_BYTES<PIECES>);
  }
}

// Values, less `centre` where there is one: two patches in 32 bits, and the numbers of a head side
// by side.
template <size_t PIECES>
INLINE void lay_values(const TowerAttentionTiled& work, const Patches& patches,
                       const float* centre, size_t tile) {
  alignas(64) float pair[2][MOST_SIZE] = {};
  const size_t size = work.base.size;
  for (size_t row = 0; row < TILED_KEYS; row++) {
    if (row < patches.count)
      memcpy(pair[row % 2], patches.row(row, 2), size * sizeof(float));
    else
      memset(pair[row % 2], 0, size * sizeof(float));
    if (centre != nullptr && row < patches.count)
      for (size_t d = 0; d < size; d++) pair[row % 2][d] -= centre[d];
    if (row % 2 == 0) continue;
    for (size_t d = 0; d < work.steps * PIECE_STEP; d += WIDTH)
      store_pair<PIECES>(load(pair[0] + d), load(pair[1] + d), row / 2, d / WIDTH % 2,
                         values_at<PIECES>(work, patches.head, d / PIECE_STEP, tile));
  }
}

template <size_t PIECES>
void prepare(const TowerAttentionTiled& work, const TowerTiledPart& tiled) {
  const TowerPart& part = tiled.part;
  const size_t left = part.end - part.first, count = left < TILED_KEYS ? left : TILED_KEYS;
  const size_t tile = tiled.first_tile + (part.first - part.begin) / TILED_KEYS;
  const size_t at = place<PIECES>(work, part.head, tile);
  const Patches patches = {work.base, part.head, part.first, count};
  const float scale = UNIT<PIECES> / __builtin_sqrtf(float(work.base.size));
  const float* centre = PIECES == COARSE ? centre_of(work, tiled) : nullptr;
  const float* values_centre = PIECES == COARSE ? centre + work.base.size : nullptr;
  lay_rows<PIECES>(patches, 0, nullptr, scale, work.steps, work.queries + at);
  lay_rows<PIECES>(patches, 1, centre, 1.0f, work.steps, work.keys + at);
  lay_values<PIECES>(work, patches, values_centre, tile);
  for (size_t step = 0; step < work.steps; step++)
    turn_step<PIECES>(work.keys + at + step * STEP_BYTES<PIECES>);
}

}  // namespace TANDEM_ISA
