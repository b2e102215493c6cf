// The tower's attention in integers: queries times keys in int8, weights times values in int16.
//
// A key less the mean of its segment's keys has the same softmax, and smaller numbers (Zhang et al.
// 2024, SageAttention). Each query and key has a scale of its own. Eight bits are too few for the
// weights: where one patch has most, all others together would round to nothing; so weights have
// 14 bits and values, less the middle of each channel's range, 11, and sums of a tile still fit 32.
//
// As in tower_attention.cpp the lanes are queries and everything else is a broadcast operand.
#include "tower_attention_fast.h"

#include <string.h>

#include "int8.h"

namespace TANDEM_ISA {
namespace {

constexpr size_t TILE = 60;         // keys looked at together
constexpr size_t LANES = 2 * WIDTH;  // queries computed together
constexpr size_t MOST_SIZE = 256;   // of a head
constexpr float WEIGHT_LEVELS = 16383.0f, VALUE_LEVELS = 1023.0f;
static_assert(TILE * 16383.0 * 1023.0 < 2147483648.0, "sums of a tile overflow");
static_assert(TILE % 2 == 0, "pairs of patches lie in one tile");

#if defined(__AVX512VNNI__)
constexpr size_t KEYS = 12, NUMBERS = 8;  // broadcast together: what the registers have room for
#else
constexpr size_t KEYS = 5, NUMBERS = 4;
#endif

// Adds to each 32-bit lane the two products of its signed halves.
INLINE Ints dot_halves(Ints total, Ints x, Ints y) {
#if defined(__AVX512VNNI__)
  return _mm512_dpwssd_epi32(total, x, y);
#elif defined(__AVXVNNI__)
  return _mm256_dpwssd_avx_epi32(total, x, y);
#else
  return _mm256_add_epi32(total, _mm256_madd_epi16(x, y));
#endif
}
INLINE Ints high_halves(Ints x) {
#if defined(__AVX512VNNI__)
  return _mm512_slli_epi32(x, 16);
#else
  return _mm256_slli_epi32(x, 16);
#endif
}
INLINE void store_ints(int32_t* p, Ints x) {
#if defined(__AVX512VNNI__)
  _mm512_storeu_si512(p, x);
#else
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
#endif
}

// 2 to the power of x <= 0 within 3e-6: the weights have 14 bits.
INLINE Floats power(Floats x) {
  const Floats clipped = max(x, broadcast(-126.0f)), n = round(clipped), r = sub(clipped, n);
  Floats p = broadcast(0.0013333558f);
  p = fma(p, r, broadcast(0.0096181291f));
  p = fma(p, r, broadcast(0.0555041087f));
  p = fma(p, r, broadcast(0.2402265070f));
  p = fma(p, r, broadcast(0.6931471806f));
  p = fma(p, r, broadcast(1.0f));
  return mul(p, power_of_two(n));
}

// ---------------------------------------------------------------------------------------------
// Keys and values

// A row of a head, with zeros up to a whole register.
struct Row {
  alignas(64) float numbers[MOST_SIZE + WIDTH] = {};
  alignas(64) int8_t bytes[MOST_SIZE + WIDTH];
};

// Rounds a row's numbers to signed bytes; returns their scale.
INLINE float to_bytes(Row& row, size_t size) {
  Floats peaks = broadcast(0.0f);
  for (size_t d = 0; d < size; d += WIDTH) peaks = max(peaks, abs(load(row.numbers + d)));
  const float most = peak(peaks);
  const Floats inverse = broadcast(most < 1e-30f ? 0.0f : 127.0f / most);
  for (size_t d = 0; d < size; d += WIDTH)
    store_bytes(row.bytes + d, to_ints(mul(load(row.numbers + d), inverse)));
  return most / 127.0f;
}

void quantize_keys(const TowerAttentionFast& work, const TowerSegment& segment, size_t head) {
  const size_t size = work.base.size, before = head * work.base.patches;
  const float* keys = work.base.keys + before * size;
  float means[MOST_SIZE] = {};
  for (size_t patch = segment.begin; patch < segment.end; patch++)
    for (size_t d = 0; d < size; d++) means[d] += keys[patch * size + d];
  for (size_t d = 0; d < size; d++) means[d] /= float(segment.end - segment.begin);
  Row row;
  for (size_t patch = segment.begin; patch < segment.end; patch++) {
    for (size_t d = 0; d < size; d++) row.numbers[d] = keys[patch * size + d] - means[d];
    work.key_scales[before + patch] = to_bytes(row, size);
    uint8_t* bytes = work.key_bytes + (before + patch) * work.padded;
    for (size_t d = 0; d < work.padded; d++) bytes[d] = uint8_t(row.bytes[d]) ^ BYTE_OFFSET;
  }
}

void quantize_values(const TowerAttentionFast& work, const TowerSegment& segment, size_t head) {
  const size_t size = work.base.size;
  const float* values = work.base.values + head * work.base.patches * size;
  float* scales = work.value_ranges + (segment.index * work.base.heads + head) * 2 * size;
  float *middles = scales + size, highs[MOST_SIZE], lows[MOST_SIZE], inverses[MOST_SIZE];
  memcpy(highs, values + segment.begin * size, size * sizeof(float));
  memcpy(lows, highs, size * sizeof(float));
  for (size_t patch = segment.begin; patch < segment.end; patch++)
    for (size_t d = 0; d < size; d++) {
      const float value = values[patch * size + d];
      highs[d] = value > highs[d] ? value : highs[d];
      lows[d] = value < lows[d] ? value : lows[d];
    }
  for (size_t d = 0; d < size; d++) {
    middles[d] = 0.5f * highs[d] + 0.5f * lows[d];
    const float most = highs[d] - middles[d];
    scales[d] = most / VALUE_LEVELS;
    inverses[d] = most < 1e-30f ? 0.0f : VALUE_LEVELS / most;
  }
  int16_t* to = work.value_pairs + (head * work.pairs + segment.first_pair) * size * 2;
  for (size_t patch = segment.begin; patch < segment.end; patch++) {
    const size_t place = patch - segment.begin;
    int16_t* pair = to + place / 2 * size * 2 + place % 2;
    for (size_t d = 0; d < size; d++) {
      const float value = values[patch * size + d] - middles[d];
      pair[2 * d] = int16_t(int(__builtin_rintf(value * inverses[d])));
    }
  }
  if ((segment.end - segment.begin) % 2 != 0)  // the half of the last pair that is no patch
    for (size_t d = 0; d < size; d++)
      to[(segment.end - segment.begin) / 2 * size * 2 + 2 * d + 1] = 0;
}

void quantize(const TowerAttentionFast& work, const TowerSegment& segment, size_t head) {
  quantize_keys(work, segment, head);
  quantize_values(work, segment, head);
}

// ---------------------------------------------------------------------------------------------
// One block of queries

// The working memory of one part, on the stack.
struct Block {
  alignas(64) int8_t queries[MOST_SIZE * LANES];     // [padded / 4, LANES, 4]
  alignas(64) float scales[LANES];                   // of the queries, the softmax's in them
  alignas(64) int32_t starts[LANES];                 // of the queries' sums
  alignas(64) float scores[TILE * LANES];            // [TILE, LANES]
  alignas(64) int32_t weights[TILE / 2 * LANES];     // [TILE / 2, LANES], two patches in each
  alignas(64) float sums[MOST_SIZE * LANES];         // [size, LANES], of weighted values
  Floats highest[2], totals[2];
};

// scores[t] = keys[t] . queries for N keys
template <size_t N>
INLINE void score(const Block& block, const uint8_t* keys, const float* scales, size_t padded,
                  float* scores) {
  Ints made[N][2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const Ints start = load_ints(block.starts + half * WIDTH);
#pragma unroll
    for (size_t t = 0; t < N; t++) made[t][half] = start;
  }
  for (size_t d = 0; d < padded; d += 4) {
    const Ints low = load_ints(block.queries + d * LANES);
    const Ints high = load_ints(block.queries + d * LANES + WIDTH * 4);
#pragma unroll
    for (size_t t = 0; t < N; t++) {
      int32_t four;
      memcpy(&four, keys + t * padded + d, 4);
      const Quad key = quad(four);
      made[t][0] = dot_signed(made[t][0], key, low);
      made[t][1] = dot_signed(made[t][1], key, high);
    }
  }
  for (size_t t = 0; t < N; t++)
    for (int half = 0; half < 2; half++) {
      const Floats scale = mul(load(block.scales + half * WIDTH), broadcast(scales[t]));
      store(scores + t * LANES + half * WIDTH, mul(to_floats(made[t][half]), scale));
    }
}

template <size_t N>
void score_or_fewer(const Block& block, const uint8_t* keys, const float* scales, size_t count,
                    size_t padded, float* scores) {
  if constexpr (N > 0) {
    if (count == N) return score<N>(block, keys, scales, padded, scores);
    score_or_fewer<N - 1>(block, keys, scales, count, padded, scores);
  }
}

// Turns the scores of a tile into weights; returns what earlier sums are to be multiplied with.
INLINE void weigh(Block& block, size_t count, Floats (&faded)[2]) {
  const Floats levels = broadcast(WEIGHT_LEVELS);
  for (int half = 0; half < 2; half++) {
    const float* scores = block.scores + half * WIDTH;
    int32_t* weights = block.weights + half * WIDTH;
    Floats highest = block.highest[half];
    for (size_t t = 0; t < count; t++) highest = max(highest, load(scores + t * LANES));
    faded[half] = power(sub(block.highest[half], highest));
    Ints total = broadcast(int32_t(0));
    for (size_t t = 0; t < count; t += 2) {
      const Ints first = to_ints(mul(power(sub(load(scores + t * LANES), highest)), levels));
      Ints second = broadcast(int32_t(0));
      if (t + 1 < count)
        second = to_ints(mul(power(sub(load(scores + (t + 1) * LANES), highest)), levels));
      total = add(total, add(first, second));
      store_ints(weights + t / 2 * LANES, add(first, high_halves(second)));
    }
    block.totals[half] = fma(block.totals[half], faded[half], to_floats(total));
    block.highest[half] = highest;
  }
}

// sums[d] = sums[d] * faded + values[:, d] . weights for N numbers of a head
template <size_t N>
INLINE void gather(const int16_t* values, size_t size, size_t pairs, const int32_t* weights,
                   const Floats (&faded)[2], float* sums) {
  Ints made[N][2];
#pragma unroll
  for (size_t j = 0; j < N; j++) made[j][0] = made[j][1] = broadcast(int32_t(0));
  for (size_t t = 0; t < pairs; t++) {
    const Ints low = load_ints(weights + t * LANES), high = load_ints(weights + t * LANES + WIDTH);
#pragma unroll
    for (size_t j = 0; j < N; j++) {
      int32_t two;
      memcpy(&two, values + (t * size + j) * 2, 4);
      const Ints value = broadcast(two);
      made[j][0] = dot_halves(made[j][0], value, low);
      made[j][1] = dot_halves(made[j][1], value, high);
    }
  }
  for (size_t j = 0; j < N; j++)
    for (int half = 0; half < 2; half++) {
      float* at = sums + j * LANES + half * WIDTH;
      store(at, fma(load(at), faded[half], to_floats(made[j][half])));
    }
}

template <size_t N>
void gather_or_fewer(const int16_t* values, size_t left, size_t size, size_t pairs,
                     const int32_t* weights, const Floats (&faded)[2], float* sums) {
  if constexpr (N > 0) {
    if (left == N) return gather<N>(values, size, pairs, weights, faded, sums);
    gather_or_fewer<N - 1>(values, left, size, pairs, weights, faded, sums);
  }
}

// Queries in bytes, and empty sums. Lanes without a query repeat the last.
INLINE void begin(const TowerAttentionFast& work, const TowerSegment& segment, size_t head,
                  size_t first, Block& block) {
  const size_t size = work.base.size, width = work.base.heads * size;
  // In powers of two, which are cheaper than those of e.
  const float scale = 1.44269504f / __builtin_sqrtf(float(size));
  Row row;
  for (size_t lane = 0; lane < LANES; lane++) {
    const size_t wanted = first + lane, patch = wanted < segment.end ? wanted : segment.end - 1;
    rotate(work.base, work.base.joined + patch * 3 * width + head * size, patch, row.numbers);
    block.scales[lane] = scale * to_bytes(row, size);
    int32_t sum = 0;
    for (size_t d = 0; d < work.padded; d++) sum += row.bytes[d];
    block.starts[lane] = -int32_t(BYTE_OFFSET) * sum;
    for (size_t d = 0; d < work.padded; d += 4)
      memcpy(block.queries + d * LANES + lane * 4, row.bytes + d, 4);
  }
  memset(block.sums, 0, size * LANES * sizeof(float));
  for (int half = 0; half < 2; half++) {
    block.highest[half] = broadcast(-__builtin_inff());
    block.totals[half] = broadcast(0.0f);
  }
}

INLINE void finish(const TowerAttentionFast& work, const TowerSegment& segment, size_t head,
                   size_t first, Block& block) {
  const size_t size = work.base.size, width = work.base.heads * size;
  const float* scales = work.value_ranges + (segment.index * work.base.heads + head) * 2 * size;
  const float* middles = scales + size;
  for (int half = 0; half < 2; half++) {
    const Floats inverse = div(broadcast(1.0f), block.totals[half]);
    for (size_t d = 0; d < size; d++) {
      float* at = block.sums + d * LANES + half * WIDTH;
      store(at, fma(mul(load(at), inverse), broadcast(scales[d]), broadcast(middles[d])));
    }
  }
  for (size_t lane = 0; lane < LANES && first + lane < segment.end; lane++) {
    float* out = work.base.out + (first + lane) * width + head * size;
    for (size_t d = 0; d < size; d++) out[d] = block.sums[d * LANES + lane];
  }
}

void compute(const TowerAttentionFast& work, const TowerSegment& segment, size_t head,
             size_t first) {
  Block block;
  begin(work, segment, head, first, block);
  const size_t size = work.base.size, padded = work.padded;
  for (size_t key = segment.begin; key < segment.end; key += TILE) {
    const size_t count = segment.end - key < TILE ? segment.end - key : TILE;
    const size_t at = head * work.base.patches + key;
    for (size_t t = 0; t < count; t += KEYS)
      score_or_fewer<KEYS>(block, work.key_bytes + (at + t) * padded, work.key_scales + at + t,
                           count - t < KEYS ? count - t : KEYS, padded, block.scores + t * LANES);
    Floats faded[2];
    weigh(block, count, faded);
    const size_t pair = head * work.pairs + segment.first_pair + (key - segment.begin) / 2;
    for (size_t d = 0; d < size; d += NUMBERS)
      gather_or_fewer<NUMBERS>(work.value_pairs + (pair * size + d) * 2,
                               size - d < NUMBERS ? size - d : NUMBERS, size, (count + 1) / 2,
                               block.weights, faded, block.sums + d * LANES);
  }
  finish(work, segment, head, first, block);
}

}  // namespace

const TowerAttentionFastKernel TOWER_ATTENTION_FAST = {LANES, quantize, compute};

}  // namespace TANDEM_ISA
