// Attention over a slot's keys and values, as one instruction set computes it. See attention.cpp.
#pragma once
#include <stddef.h>
#include <stdint.h>

// Heads that the operator computes. The same numbers stand in kernels/layout.py, for the exporter;
// tests/unit/kernels/test_layout.py compares them.
constexpr int HEAD_DIM_STEP = 16;  // numbers of the widest register: a head fills whole ones
constexpr int MOST_HEAD_DIM = 256;
constexpr int MOST_GROUPED_HEADS = 16;  // query heads of one KV head: two AVX2 registers' lanes

// Neighbouring rows of a run that are new tokens of one sequence.
struct Segment {
  int32_t slot;    // of the cache
  int32_t tokens;  // rows
  int32_t past;    // valid rows of the slot before the run
};

struct Attention {
  const float* joined;      // [rows, (heads + 2 * kv_heads) * size]: queries, keys, values
  const float* query_norm;  // [size]
  const float* key_norm;    // [size]
  const float* cosines;     // [rows, size / 2]
  const float* sines;       // [rows, size / 2]
  void* keys;               // [slots, kv_heads, capacity, size], float32 or float16; written to
  void* values;             // like keys
  float* queries;           // [rows, heads, size], made by `prepare`
  float* out;               // [rows, heads, size]
  size_t heads, kv_heads, size, capacity;
  float epsilon, scale;
  bool half;  // keys and values are float16
};

// A piece of the work: a segment's only token, or a block of its tokens, for one head of the cache.
struct Part {
  Segment segment;
  int32_t first;  // row of the segment's first token
  int32_t kv_head;
  int32_t block;
};

struct AttentionKernel {
  // Norms and rotates the queries and keys of one row; keys and values go to the cache.
  void (*prepare)(const Attention& attention, const Segment& segment, size_t token, size_t row);
  size_t (*block_tokens)(const Attention& attention);  // of a whole block
  void (*compute)(const Attention& attention, const Part& part);
};

namespace avx512 {
extern const AttentionKernel ATTENTION;
}
namespace avxvnni {
extern const AttentionKernel ATTENTION;
}
namespace avx2 {
extern const AttentionKernel ATTENTION;
}
