// Products of signed bytes with signed bytes, exact on every instruction set.
//
// The dot product instructions multiply unsigned bytes with signed ones. Where they sum in 32 bits
// at once, the first operand is moved up by 128, and 128 times the sum of the second is taken off
// again. AVX2 sums pairs in 16 bits, which 255 * 127 * 2 would overflow: there the first operand's
// sign moves to the second one, unless that one is laid out for it (int8_panel.h). Neither operand
// may be -128.
#pragma once
#include "simd.h"

namespace TANDEM_ISA {

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)

constexpr uint8_t BYTE_OFFSET = 128;
struct Quad {
  Ints bytes;
};
INLINE Quad quad(int32_t four) { return {broadcast(four)}; }
INLINE Ints dot_signed(Ints total, Quad x, Ints y) { return dot(total, x.bytes, y); }

#else

constexpr uint8_t BYTE_OFFSET = 0;
struct Quad {
  Ints bytes, magnitudes;
};
INLINE Quad quad(int32_t four) {
  const Ints bytes = broadcast(four);
  return {bytes, _mm256_abs_epi8(bytes)};
}
INLINE Ints dot_signed(Ints total, Quad x, Ints y) {
  return dot(total, x.magnitudes, _mm256_sign_epi8(y, x.bytes));
}

#endif

// What a sum of products of bytes that were moved up by 128 starts with, given the sum of the
// second operand.
INLINE Ints start_of(Ints sum) {
#if defined(__AVX512VNNI__)
  return _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sum, 7));
#else
  return _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(sum, 7));
#endif
}

INLINE Ints load_ints(const void* p) { return load_bytes(static_cast<const uint8_t*>(p)); }

}  // namespace TANDEM_ISA
