// Registers of the instruction set that a source file is compiled for: AVX-512 with VNNI, AVX2 with
// AVX-VNNI, or AVX2 alone.
//
// Everything lies in a namespace named after the set, so that one library holds them all.
#pragma once
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define INLINE __attribute__((always_inline)) inline

#if defined(__AMX_INT8__)
#define TANDEM_ISA amx
#elif defined(__AVX512VNNI__)
#define TANDEM_ISA avx512
#elif defined(__AVXVNNI__)
#define TANDEM_ISA avxvnni
#else
#define TANDEM_ISA avx2
#endif

namespace TANDEM_ISA {

#if defined(__AVX512VNNI__)

constexpr int WIDTH = 16;  // float32 lanes
using Floats = __m512;
using Ints = __m512i;

INLINE Floats load(const float* p) { return _mm512_loadu_ps(p); }
INLINE Floats load(const _Float16* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
INLINE void store(float* p, Floats x) { _mm512_storeu_ps(p, x); }
INLINE void store(_Float16* p, Floats x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
INLINE Floats broadcast(float x) { return _mm512_set1_ps(x); }
INLINE Floats add(Floats x, Floats y) { return _mm512_add_ps(x, y); }
INLINE Floats sub(Floats x, Floats y) { return _mm512_sub_ps(x, y); }
INLINE Floats mul(Floats x, Floats y) { return _mm512_mul_ps(x, y); }
INLINE Floats div(Floats x, Floats y) { return _mm512_div_ps(x, y); }
INLINE Floats fma(Floats x, Floats y, Floats z) { return _mm512_fmadd_ps(x, y, z); }
INLINE Floats max(Floats x, Floats y) { return _mm512_max_ps(x, y); }
INLINE Floats min(Floats x, Floats y) { return _mm512_min_ps(x, y); }
INLINE Floats abs(Floats x) { return _mm512_abs_ps(x); }
INLINE float sum(Floats x) { return _mm512_reduce_add_ps(x); }
INLINE float peak(Floats x) { return _mm512_reduce_max_ps(x); }
INLINE Floats round(Floats x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE Floats power_of_two(Floats n) { return _mm512_scalef_ps(_mm512_set1_ps(1), n); }
// z in the lanes where x <= y, -infinity in the others.
INLINE Floats where_at_most(Floats x, Floats y, Floats z) {
  return _mm512_mask_mov_ps(_mm512_set1_ps(-__builtin_inff()),
                            _mm512_cmp_ps_mask(x, y, _CMP_LE_OQ), z);
}

INLINE Ints load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
INLINE Ints broadcast(int32_t x) { return _mm512_set1_epi32(x); }
INLINE Ints low_nibbles(Ints x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
INLINE Ints high_nibbles(Ints x) { return low_nibbles(_mm512_srli_epi16(x, 4)); }
INLINE Ints add(Ints x, Ints y) { return _mm512_add_epi32(x, y); }
INLINE Floats to_floats(Ints x) { return _mm512_cvtepi32_ps(x); }
INLINE Ints to_ints(Floats x) { return _mm512_cvtps_epi32(x); }
INLINE int32_t sum(Ints x) { return _mm512_reduce_add_epi32(x); }
// Adds to each 32-bit lane the products of its four unsigned bytes of x with signed ones of y.
INLINE Ints dot(Ints total, Ints x, Ints y) { return _mm512_dpbusd_epi32(total, x, y); }
// Whether sums of products with nibbles are kept in 16 bits for a while.
constexpr bool HAS_SHORT_SUMS = false;
INLINE Ints dot_short(Ints total, Ints, Ints) { return total; }
INLINE Ints add_short(Ints total, Ints) { return total; }
INLINE void store_bytes(int8_t* p, Ints x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(x));
}

#else

constexpr int WIDTH = 8;
using Floats = __m256;
using Ints = __m256i;

INLINE Floats load(const float* p) { return _mm256_loadu_ps(p); }
INLINE Floats load(const _Float16* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
INLINE void store(float* p, Floats x) { _mm256_storeu_ps(p, x); }
INLINE void store(_Float16* p, Floats x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
INLINE Floats broadcast(float x) { return _mm256_set1_ps(x); }
INLINE Floats add(Floats x, Floats y) { return _mm256_add_ps(x, y); }
INLINE Floats sub(Floats x, Floats y) { return _mm256_sub_ps(x, y); }
INLINE Floats mul(Floats x, Floats y) { return _mm256_mul_ps(x, y); }
INLINE Floats div(Floats x, Floats y) { return _mm256_div_ps(x, y); }
INLINE Floats fma(Floats x, Floats y, Floats z) { return _mm256_fmadd_ps(x, y, z); }
INLINE Floats max(Floats x, Floats y) { return _mm256_max_ps(x, y); }
INLINE Floats min(Floats x, Floats y) { return _mm256_min_ps(x, y); }
INLINE Floats abs(Floats x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
INLINE float sum(Floats x) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_shuffle_ps(half, half, 1)));
}
INLINE float peak(Floats x) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_shuffle_ps(half, half, 1)));
}
INLINE Floats round(Floats x) {
  return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE Floats power_of_two(Floats n) {  // n in [-126, 127]
  const Ints exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
INLINE Floats where_at_most(Floats x, Floats y, Floats z) {
  return _mm256_blendv_ps(_mm256_set1_ps(-__builtin_inff()), z, _mm256_cmp_ps(x, y, _CMP_LE_OQ));
}

INLINE Ints load_bytes(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
INLINE Ints broadcast(int32_t x) { return _mm256_set1_epi32(x); }
INLINE Ints low_nibbles(Ints x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
INLINE Ints high_nibbles(Ints x) { return low_nibbles(_mm256_srli_epi16(x, 4)); }
INLINE Ints add(Ints x, Ints y) { return _mm256_add_epi32(x, y); }
INLINE Floats to_floats(Ints x) { return _mm256_cvtepi32_ps(x); }
INLINE Ints to_ints(Floats x) { return _mm256_cvtps_epi32(x); }
INLINE int32_t sum(Ints x) {
  __m128i half = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  half = _mm_add_epi32(half, _mm_unpackhi_epi64(half, half));
  return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 1)));
}
#if defined(__AVXVNNI__)
INLINE Ints dot(Ints total, Ints x, Ints y) { return _mm256_dpbusd_avx_epi32(total, x, y); }
constexpr bool HAS_SHORT_SUMS = false;
INLINE Ints dot_short(Ints total, Ints, Ints) { return total; }
INLINE Ints add_short(Ints total, Ints) { return total; }
#else
// The 16-bit sums of two products cannot overflow: a nibble times a byte is at most 15 * 127.
INLINE Ints dot(Ints total, Ints x, Ints y) {
  const Ints pairs = _mm256_maddubs_epi16(x, y);
  return _mm256_add_epi32(total, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
// A dot product takes three instructions here, so sums stay in 16 bits for eight of them, two
// instructions each: 8 * 2 * 15 * 127 = 30480 is below 2^15.
constexpr bool HAS_SHORT_SUMS = true;
INLINE Ints dot_short(Ints total, Ints x, Ints y) {
  return _mm256_add_epi16(total, _mm256_maddubs_epi16(x, y));
}
INLINE Ints add_short(Ints total, Ints sums) {
  return _mm256_add_epi32(total, _mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
}
#endif
INLINE void store_bytes(int8_t* p, Ints x) {
  const __m128i words =
      _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}

#endif

// exp(x) within 2 units in the last place; 0 below -87.3, where exp leaves the normal numbers.
// Source: Cephes' expf, a polynomial on [-ln 2 / 2, ln 2 / 2].
INLINE Floats exp(Floats x) {
  constexpr float LEAST = -87.3f;
  const Floats clipped = min(max(x, broadcast(LEAST)), broadcast(88.0f));
  const Floats n = round(mul(clipped, broadcast(1.44269504088896341f)));
  Floats r = fma(n, broadcast(-0.693359375f), clipped);
  r = fma(n, broadcast(2.12194440e-4f), r);
  Floats p = broadcast(1.9875691500e-4f);
  p = fma(p, r, broadcast(1.3981999507e-3f));
  p = fma(p, r, broadcast(8.3334519073e-3f));
  p = fma(p, r, broadcast(4.1665795894e-2f));
  p = fma(p, r, broadcast(1.6666665459e-1f));
  p = fma(p, r, broadcast(5.0000001201e-1f));
  p = fma(p, mul(r, r), add(r, broadcast(1.0f)));
  const Floats made = mul(p, power_of_two(n));
#if defined(__AVX512VNNI__)
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, broadcast(LEAST), _CMP_GE_OQ), made);
#else
  return _mm256_and_ps(_mm256_cmp_ps(x, broadcast(LEAST), _CMP_GE_OQ), made);
#endif
}

}  // namespace TANDEM_ISA
