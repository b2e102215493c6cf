// Attention of the vision tower, as one instruction set computes it. See tower_attention.cpp.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct TowerAttention {
  const float* joined;   // [patches, 3 * heads * size]: queries, keys, values
  const float* cosines;  // [patches, size / 2]
  const float* sines;    // [patches, size / 2]
  size_t patches;
  size_t heads;
  size_t size;  // of a head
  float* keys;    // working memory [heads, patches, size]: turned by their positions
  float* values;  // working memory [heads, patches, size]
  float* out;     // [patches, heads * size]
};

// out = x turned by the patch's angles; the halves of a head are the parts of complex numbers.
[[maybe_unused]] static void rotate(const TowerAttention& work, const float* x, size_t patch, float* out) {
  const size_t half = work.size / 2;
  const float* cosines = work.cosines + patch * half;
  const float* sines = work.sines + patch * half;
  for (size_t d = 0; d < half; d++) {
    out[d] = x[d] * cosines[d] - x[half + d] * sines[d];
    out[half + d] = x[half + d] * cosines[d] + x[d] * sines[d];
  }
}

// What one thread takes: some queries of a head, and the patches that they attend to.
struct TowerPart {
  size_t head;
  size_t begin, end;  // the segment
  size_t first;       // query
};

struct TowerAttentionKernel {
  size_t block;  // queries of a part, at most
  // Prepares keys and values of one patch.
  void (*prepare)(const TowerAttention& work, size_t patch);
  void (*compute)(const TowerAttention& work, const TowerPart& part);
};

namespace avx512 {
extern const TowerAttentionKernel TOWER_ATTENTION;
}
namespace avxvnni {
extern const TowerAttentionKernel TOWER_ATTENTION;
}
namespace avx2 {
extern const TowerAttentionKernel TOWER_ATTENTION;
}
