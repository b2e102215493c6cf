// Causal attention of grouped queries over a cache that is written in place, from the product of
// the hidden states with the joined query, key and value weights: RMS norms per head, rotary
// positions, the cache, softmax(QK)V. A run holds segments: new tokens of any number of sequences.
// Those of several tokens and those of one are computed in different ways; see the two headers.
//
// Source: transformers Qwen3VLTextAttention.forward.
//
// Arithmetic is in float32 whatever the cache holds.
#include "attention.h"

#include <string.h>

#include "attention_block.h"
#include "attention_cache.h"
#include "attention_token.h"
#include "simd.h"

namespace TANDEM_ISA {
namespace {

// out = rotated(x / rms(x) * weight); the halves of a head are the parts of its complex numbers.
// Products are rounded before they are added, as the model's authors' code does: the same numbers
// wherever possible.
INLINE void norm_and_rotate(const Attention& work, const float* x, const float* weight, size_t row,
                          float* out) {
#pragma clang fp contract(off)
  Floats squares = broadcast(0.0f);
  for (size_t d = 0; d < work.size; d += WIDTH) {
    const Floats part = load(x + d);
    squares = fma(part, part, squares);
  }
  const size_t half = work.size / 2;
  const float inverse = 1.0f / __builtin_sqrtf(sum(squares) / float(work.size) + work.epsilon);
  const float *cosines = work.cosines + row * half, *sines = work.sines + row * half;
  for (size_t d = 0; d < half; d++) {
    const float real = x[d] * inverse * weight[d];
    const float imaginary = x[half + d] * inverse * weight[half + d];
    out[d] = real * cosines[d] - imaginary * sines[d];
    out[half + d] = imaginary * cosines[d] + real * sines[d];
  }
}

INLINE void copy(const float* from, size_t size, float* to) {
  memcpy(to, from, size * sizeof(float));
}

// What float16 cannot hold becomes the most it can, not infinity; a NaN stays one (the second
// operand is given back), so that the sequence it belongs to is found out.
INLINE void copy(const float* from, size_t size, _Float16* to) {
  const Floats most = broadcast(65504.0f), least = broadcast(-65504.0f);
  for (size_t i = 0; i < size; i += WIDTH) store(to + i, min(most, max(least, load(from + i))));
}

template <typename Number>
INLINE void prepare_as(const Attention& work, const Segment& segment, size_t token, size_t row) {
  const size_t size = work.size;
  const float* joined = work.joined + row * (work.heads + 2 * work.kv_heads) * size;
  for (size_t head = 0; head < work.heads; head++)
    norm_and_rotate(work, joined + head * size, work.query_norm, row,
                  work.queries + (row * work.heads + head) * size);
  const float* keys = joined + work.heads * size;
  const float* values = keys + work.kv_heads * size;
  const size_t at = (segment.past + token) * size;
  for (size_t head = 0; head < work.kv_heads; head++) {
    const Cache<Number> cache = cache_of<Number>(work, segment.slot, head);
    float key[MOST_HEAD_DIM];
    norm_and_rotate(work, keys + head * size, work.key_norm, row, key);
    copy(key, size, cache.keys + at);
    copy(values + head * size, size, cache.values + at);
  }
}

void prepare(const Attention& work, const Segment& segment, size_t token, size_t row) {
  if (work.half)
    prepare_as<_Float16>(work, segment, token, row);
  else
    prepare_as<float>(work, segment, token, row);
}

template <typename Number>
INLINE void compute_as(const Attention& work, const Part& part) {
  if (part.segment.tokens == 1)
    attend_token<Number>(work, part);
  else
    attend_block<Number>(work, part);
}

void compute(const Attention& work, const Part& part) {
  if (work.half)
    compute_as<_Float16>(work, part);
  else
    compute_as<float>(work, part);
}

}  // namespace

const AttentionKernel ATTENTION = {prepare, block_tokens, compute};

}  // namespace TANDEM_ISA
