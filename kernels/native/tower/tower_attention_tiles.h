// The tower's attention, computed with matrix tiles (AMX); see tower_attention_tiles.cpp.
#pragma once
#include "tower_attention.h"

constexpr size_t TILED_KEYS = 32;  // laid out together; a segment is padded to whole ones
constexpr size_t TILED_QUERIES = 256;  // of a part, at most

struct TowerAttentionTiled {
  TowerAttention base;  // `keys` and `values` are not used
  uint8_t* queries;     // [heads, key tiles, head steps][a step], rows are patches
  uint8_t* keys;        // [heads, key tiles, head steps][a step], columns are patches
  uint8_t* values;      // [heads, head steps, key tiles][a step], columns are numbers of a head
  float* centres;       // [segments, heads, 2, size]: of keys, of values; null where exact
  size_t key_tiles;     // of all segments
  size_t steps;         // of a head's size, `tiled_steps` of it
};

// How many steps a head of so many numbers is laid out in: some of which there are products for.
constexpr size_t tiled_steps(size_t size) {
  const size_t steps = (size + TILED_KEYS - 1) / TILED_KEYS;
  return steps <= 4 ? steps : 8;
}

// What one thread takes; which segment it is of, and where that one's first key tile lies.
struct TowerTiledPart {
  TowerPart part;
  size_t segment, first_tile;
};

struct TowerAttentionTiledKernel {
  size_t step_bytes;  // of 32 keys by 32 numbers
  // Finds the centres of one head in one segment; null where there are none.
  void (*centre)(const TowerAttentionTiled& work, const TowerTiledPart& part);
  // Lays out the queries, keys and values of up to 32 patches from `part.first` on.
  void (*prepare)(const TowerAttentionTiled& work, const TowerTiledPart& part);
  void (*compute)(const TowerAttentionTiled& work, const TowerTiledPart& part);
};

namespace amx {
extern const TowerAttentionTiledKernel TOWER_ATTENTION_TILED;   // in float32
extern const TowerAttentionTiledKernel TOWER_ATTENTION_COARSE;  // in bfloat16
}
