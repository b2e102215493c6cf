// The tower's attention in integers, as one instruction set computes it; see
// tower_attention_fast.cpp.
#pragma once
#include "tower_attention.h"

struct TowerAttentionFast {
  TowerAttention base;   // `keys` and `values` are of the whole run
  uint8_t* key_bytes;    // [heads, patches, padded]
  float* key_scales;     // [heads, patches]
  int16_t* value_pairs;  // [heads, pairs, size, 2]: two neighbouring patches of a segment
  float* value_ranges;   // [segments, heads, 2, size]: scales, middles
  size_t padded;         // a head's size, in whole fours
  size_t pairs;          // of all segments
};

// A segment, and where its pairs begin.
struct TowerSegment {
  size_t index;
  size_t begin, end;
  size_t first_pair;
};

struct TowerAttentionFastKernel {
  size_t block;  // queries of a part, at most
  // Rounds the prepared keys and values of one head in one segment.
  void (*quantize)(const TowerAttentionFast& work, const TowerSegment& segment, size_t head);
  void (*compute)(const TowerAttentionFast& work, const TowerSegment& segment, size_t head,
                  size_t first);
};

namespace avx512 {
extern const TowerAttentionFastKernel TOWER_ATTENTION_FAST;
}
namespace avxvnni {
extern const TowerAttentionFastKernel TOWER_ATTENTION_FAST;
}
namespace avx2 {
extern const TowerAttentionFastKernel TOWER_ATTENTION_FAST;
}
