// Attention over a slot's keys and values, as one instruction set computes it. See attention.cpp.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct Attention {
  const float* query;  // [sequences, tokens, heads, size]
  const float* key;    // [sequences, tokens, kv_heads, size], of the new tokens
  const float* value;
  void* keys;    // [sequences, kv_heads, capacity, size], float32 or float16; written in place
  void* values;
  const int32_t* lengths;  // [sequences], valid rows of the cache after the run, minus one
  float* out;              // like query
  size_t sequences, tokens, heads, kv_heads, size, capacity;
  float scale;
  bool half;  // keys and values are float16
};

struct AttentionKernel {
  // Puts the new tokens' keys and values of one sequence and head into the cache.
  void (*append)(const Attention& attention, size_t sequence, size_t kv_head);
  // How many parts of the work there are, and one of them, with scratch memory of its own.
  size_t (*parts)(const Attention& attention);
  size_t (*scratch_floats)(const Attention& attention);
  void (*compute)(const Attention& attention, size_t part, float* scratch);
};

namespace avx512 {
extern const AttentionKernel ATTENTION;
}
namespace avx2 {
extern const AttentionKernel ATTENTION;
}
