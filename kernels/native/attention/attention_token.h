// Attention of a segment's only token, for all heads of a group.
//
// Reading the cache is what it costs. The lanes are neighbouring numbers of a key or a value, which
// is read once for all heads of its group.
#pragma once
#include <string.h>

#include "attention_cache.h"

namespace TANDEM_ISA {
namespace {

constexpr size_t SPAN = 128;  // keys looked at together: they and their values fit a core's cache
// Bytes between the row that is read and the one that is asked for: the cache is read faster than
// the processor's own prefetching brings it.
constexpr size_t AHEAD = 1536;

// Asks for the cache lines of `bytes` bytes, some way ahead of what is being read.
INLINE void prefetch(const void* at, size_t bytes) {
  const char* from = static_cast<const char*>(at) + AHEAD;
  for (size_t line = 0; line < bytes; line += 64) _mm_prefetch(from + line, _MM_HINT_T0);
}

// scores[head][t] = keys[t] . queries[head] * scale, for T keys and H heads
template <size_t T, size_t H, typename Number>
INLINE void score_rows(const Number* keys, size_t size, const float* queries, float scale,
                       float* scores, size_t stride) {
  Floats made[T][H];
  for (size_t t = 0; t < T; t++)
    for (size_t h = 0; h < H; h++) made[t][h] = broadcast(0.0f);
  prefetch(keys, T * size * sizeof(Number));
  for (size_t d = 0; d < size; d += WIDTH)
#pragma unroll
    for (size_t t = 0; t < T; t++) {
      const Floats key = load(keys + t * size + d);
#pragma unroll
      for (size_t h = 0; h < H; h++)
        made[t][h] = fma(key, load(queries + h * size + d), made[t][h]);
    }
  for (size_t t = 0; t < T; t++)
    for (size_t h = 0; h < H; h++) scores[h * stride + t] = sum(made[t][h]) * scale;
}

template <size_t H, typename Number>
INLINE void score_heads(const Number* keys, size_t count, size_t size, const float* queries,
                        float scale, float* scores, size_t stride) {
  size_t t = 0;
  for (; t + 4 <= count; t += 4)
    score_rows<4, H>(keys + t * size, size, queries, scale, scores + t, stride);
  for (; t < count; t++)
    score_rows<1, H>(keys + t * size, size, queries, scale, scores + t, stride);
}

// out[head] += weights[head] . values, for H heads
template <size_t H, typename Number>
INLINE void accumulate_heads(const Number* values, size_t count, size_t size,
                             const float* weights, size_t stride, float* out) {
  constexpr size_t PARTS = 4;
  size_t d = 0;
  for (; d + PARTS * WIDTH <= size; d += PARTS * WIDTH) {
    Floats made[H][PARTS];
#pragma unroll
    for (size_t h = 0; h < H; h++)
      for (size_t p = 0; p < PARTS; p++) made[h][p] = load(out + h * size + d + p * WIDTH);
    for (size_t t = 0; t < count; t++) {
      prefetch(values + t * size + d, PARTS * WIDTH * sizeof(Number));
#pragma unroll
      for (size_t p = 0; p < PARTS; p++) {
        const Floats value = load(values + t * size + d + p * WIDTH);
#pragma unroll
        for (size_t h = 0; h < H; h++)
          made[h][p] = fma(value, broadcast(weights[h * stride + t]), made[h][p]);
      }
    }
#pragma unroll
    for (size_t h = 0; h < H; h++)
      for (size_t p = 0; p < PARTS; p++) store(out + h * size + d + p * WIDTH, made[h][p]);
  }
  for (; d < size; d += WIDTH)
    for (size_t h = 0; h < H; h++) {
      Floats made = load(out + h * size + d);
      for (size_t t = 0; t < count; t++)
        made = fma(load(values + t * size + d), broadcast(weights[h * stride + t]), made);
      store(out + h * size + d, made);
    }
}

// Calls work(H, first head) for a group in steps of 4, 2 and 1 heads.
template <typename Work>
INLINE void by_heads(size_t group, Work&& work) {
  size_t head = 0;
  for (; head + 4 <= group; head += 4) work.template operator()<4>(head);
  for (; head + 2 <= group; head += 2) work.template operator()<2>(head);
  for (; head < group; head++) work.template operator()<1>(head);
}

INLINE float highest_of(float* scores, size_t count) {
  Floats highest = broadcast(LOWEST);
  const size_t padded = (count + WIDTH - 1) / WIDTH * WIDTH;
  for (size_t t = count; t < padded; t++) scores[t] = LOWEST;
  for (size_t t = 0; t < padded; t += WIDTH) highest = max(highest, load(scores + t));
  return peak(highest);
}

// Exponentials of scores less the highest, in place; returns their sum.
INLINE float exponentials(float* scores, size_t count, float highest) {
  Floats total = broadcast(0.0f);
  for (size_t t = 0; t < count; t += WIDTH) {
    const Floats weight = exp(sub(load(scores + t), broadcast(highest)));
    store(scores + t, weight);
    total = add(total, weight);
  }
  return sum(total);
}

INLINE void scale_by(float* values, size_t count, float factor) {
  for (size_t i = 0; i < count; i += WIDTH)
    store(values + i, mul(load(values + i), broadcast(factor)));
}

template <typename Number>
void attend_token(const Attention& work, const Part& part) {
  const size_t size = work.size, group = group_of(work), length = part.segment.past + 1;
  const Cache<Number> cache = cache_of<Number>(work, part.segment.slot, part.kv_head);
  const size_t first = (part.first * work.heads + part.kv_head * group) * size;
  const float* queries = work.queries + first;
  float* out = work.out + first;
  alignas(64) float scores[LANES * SPAN];  // [group, SPAN]
  float highest[LANES], totals[LANES];
  for (size_t head = 0; head < group; head++) {
    highest[head] = LOWEST;
    totals[head] = 0.0f;
  }
  memset(out, 0, group * size * sizeof(float));
  for (size_t at = 0; at < length; at += SPAN) {
    const size_t count = length - at < SPAN ? length - at : SPAN;
    by_heads(group, [&]<size_t H>(size_t head) __attribute__((always_inline)) {
      score_heads<H>(cache.keys + at * size, count, size, queries + head * size,
                     work.scale, scores + head * SPAN, SPAN);
    });
    for (size_t head = 0; head < group; head++) {
      const float most = highest_of(scores + head * SPAN, count);
      const float higher = most > highest[head] ? most : highest[head];
      const float rescale = sum(exp(broadcast(highest[head] - higher))) / WIDTH;
      totals[head] = totals[head] * rescale + exponentials(scores + head * SPAN, count, higher);
      scale_by(out + head * size, size, rescale);
      highest[head] = higher;
    }
    by_heads(group, [&]<size_t H>(size_t head) __attribute__((always_inline)) {
      accumulate_heads<H>(cache.values + at * size, count, size, scores + head * SPAN, SPAN,
                      out + head * size);
    });
  }
  for (size_t head = 0; head < group; head++)
    scale_by(out + head * size, size, 1.0f / totals[head]);
}

}  // namespace
}  // namespace TANDEM_ISA
