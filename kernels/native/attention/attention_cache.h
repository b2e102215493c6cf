// What both forms of attention share: the cache's rows, and the queries a run computes together.
#pragma once
#include "attention.h"
#include "simd.h"

namespace TANDEM_ISA {
namespace {

constexpr size_t LANES = 2 * WIDTH;  // queries computed together, in two registers
constexpr float LOWEST = -__builtin_inff();
static_assert(MOST_GROUPED_HEADS <= LANES, "a block holds at least one token of a group");

// Query heads of one KV head.
INLINE size_t group_of(const Attention& work) { return work.heads / work.kv_heads; }

// One slot's rows of one head, [capacity, size] each.
template <typename Number>
struct Cache {
  Number* keys;
  Number* values;
};

template <typename Number>
INLINE Cache<Number> cache_of(const Attention& work, size_t slot, size_t kv_head) {
  const size_t at = (slot * work.kv_heads + kv_head) * work.capacity * work.size;
  return {static_cast<Number*>(work.keys) + at, static_cast<Number*>(work.values) + at};
}

}  // namespace
}  // namespace TANDEM_ISA
