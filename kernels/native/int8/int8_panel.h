// Weights of eight outputs, laid out so that AVX2's sums of products of bytes cannot overflow.
//
// Its dot product is three instructions: the products of an unsigned byte and a signed one are added
// in pairs in 16 bits, which saturate, then in fours in 32 bits, then to the sum. An activation
// reaches 255, so a pair of weights may add up to REACH = 128 to either side: 255 * 128 = 32,640.
//
// Few pairs of rounded weights add up to more (of normal ones 2 % or less, as the largest of all is
// 127). A register of four inputs that has such a pair becomes two, whose weights add up to the
// first one's: halves of at most 64 each. Two registers whose pairs fit beside each other are a
// couple: their products are added in 16 bits and widened once, five instructions instead of six.
// So every sum is the exact integer, in 3.1 to 3.5 instructions for 32 normal weights, where moving
// an operand's sign to the other one takes four and a half.
#pragma once
#if !defined(__AVX512VNNI__) && !defined(__AVXVNNI__)
#include <string.h>

#include "int8.h"
#include "matmul_int8.h"

namespace TANDEM_ISA {

constexpr size_t FOUR_BYTES = 4 * WIDTH;  // four inputs of eight outputs
constexpr int16_t REACH = 128;            // of a pair's weights, to either side
static_assert(255 * REACH <= 32767, "the sums of a pair overflow");

struct Panel {
  static constexpr size_t MOST = 2 * INT8_INPUTS / 4;  // each register of four may become two
  size_t couples, singles, first_single;
  alignas(64) int8_t values[MOST * FOUR_BYTES];  // couples from the beginning, singles from the end
  uint16_t places[MOST];                         // which four inputs they are for
};

// What the pairs of a register add up to, to both sides, in 16 bits.
struct Reach {
  Ints up, down;
};
INLINE Reach reach_of(Ints weights) {
  const Ints zero = _mm256_setzero_si256(), ones = _mm256_set1_epi8(1);
  const Ints negative = _mm256_sub_epi8(zero, weights);
  return {_mm256_maddubs_epi16(_mm256_max_epi8(weights, zero), ones),
          _mm256_maddubs_epi16(_mm256_max_epi8(negative, zero), ones)};
}
// All bits of the pairs that reach too far.
INLINE Ints too_far(Reach reach) {
  return _mm256_cmpgt_epi16(_mm256_max_epi16(reach.up, reach.down), _mm256_set1_epi16(REACH));
}
INLINE bool is_empty(Ints bits) { return _mm256_testz_si256(bits, bits) != 0; }

// One register, and what it is for.
struct Entry {
  Ints weights;
  Reach reach;
  size_t place;
};
INLINE bool fit(const Entry& one, const Entry& other) {
  return is_empty(too_far({_mm256_add_epi16(one.reach.up, other.reach.up),
                           _mm256_add_epi16(one.reach.down, other.reach.down)}));
}

// Where the next registers go. Counted here, not in the panel: what is written there could be its
// counts, as far as the compiler knows.
struct PanelWriter {
  int8_t* values;
  uint16_t* places;
  size_t end;      // of the registers that there may be
  size_t couples;  // from the beginning
  size_t singles;  // from the end

  INLINE void write(size_t at, const Entry& entry) {
    _mm256_store_si256(reinterpret_cast<Ints*>(values + at * FOUR_BYTES), entry.weights);
    places[at] = uint16_t(entry.place);
  }
  INLINE void add(const Entry& entry) { write(end - ++singles, entry); }
  INLINE void add(const Entry& one, const Entry& other) {
    if (!fit(one, other)) {
      add(one);
      add(other);
      return;
    }
    write(2 * couples, one);
    write(2 * couples++ + 1, other);
  }
};

// Half of each weight, rounded up, in the pairs that `bits` has: an average of unsigned bytes,
// moved by 128 and back by 64.
INLINE Ints halves_of(Ints weights, Ints bits) {
  const Ints moved = _mm256_xor_si256(weights, _mm256_set1_epi8(-128));
  const Ints average = _mm256_avg_epu8(moved, _mm256_setzero_si256());
  return _mm256_and_si256(bits, _mm256_sub_epi8(average, _mm256_set1_epi8(64)));
}

// Lays out the weights of eight outputs: `fours` registers, an even number, INT8_STRIDE bytes apart.
INLINE void lay_out(const int8_t* values, size_t fours, Panel& panel) {
  PanelWriter writer = {panel.values, panel.places, 2 * fours, 0, 0};
  Entry waiting = {};  // halves without a partner
  bool is_waiting = false;
  const auto entry_at = [&](size_t four) __attribute__((always_inline)) {
    const Ints weights = load_ints(values + four * INT8_STRIDE);
    const Reach reach = reach_of(weights);
    const Ints far = too_far(reach);
    if (is_empty(far)) return Entry{weights, reach, four};
    const Ints half = halves_of(weights, far), rest = _mm256_sub_epi8(weights, half);
    const Entry made = {half, reach_of(half), four};
    if (is_waiting) writer.add(waiting, made);
    waiting = made;
    is_waiting = !is_waiting;
    return Entry{rest, reach_of(rest), four};
  };
  for (size_t four = 0; four < fours; four += 2) {
    const Entry one = entry_at(four), other = entry_at(four + 1);
    writer.add(one, other);
  }
  if (is_waiting) writer.add(waiting);
  panel.couples = writer.couples;
  panel.singles = writer.singles;
  panel.first_single = 2 * fours - writer.singles;
}

// Adds to the sums of M rows the products of their bytes, [fours][M][4], with a panel.
template <size_t M>
INLINE void add_products(const Panel& panel, const uint8_t* bytes, size_t, Ints (&sums)[M][1]) {
  const auto weights_at = [&](size_t at) __attribute__((always_inline)) {
    return _mm256_load_si256(reinterpret_cast<const Ints*>(panel.values + at * FOUR_BYTES));
  };
  const auto products = [](const uint8_t* four, Ints weights) __attribute__((always_inline)) {
    int32_t x;
    memcpy(&x, four, 4);
    return _mm256_maddubs_epi16(broadcast(x), weights);
  };
  for (size_t i = 0; i < 2 * panel.couples; i += 2) {
    const uint8_t* first = bytes + panel.places[i] * M * 4;
    const uint8_t* second = bytes + panel.places[i + 1] * M * 4;
    const Ints weights[2] = {weights_at(i), weights_at(i + 1)};
#pragma unroll
    for (size_t m = 0; m < M; m++)
      sums[m][0] = add_short(sums[m][0], _mm256_add_epi16(products(first + m * 4, weights[0]),
                                                    products(second + m * 4, weights[1])));
  }
  for (size_t i = panel.first_single; i < panel.first_single + panel.singles; i++) {
    const uint8_t* four = bytes + panel.places[i] * M * 4;
    const Ints weights = weights_at(i);
#pragma unroll
    for (size_t m = 0; m < M; m++) sums[m][0] = add_short(sums[m][0], products(four + m * 4, weights));
  }
}

}  // namespace TANDEM_ISA
#endif
