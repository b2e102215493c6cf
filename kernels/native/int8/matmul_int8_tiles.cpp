// matmul_int8.cpp's products with matrix tiles (AMX), as int8_tiles.h describes; rows are quantized
// by whole registers.
#include <string.h>

#include "int8_tiles.h"

namespace TANDEM_ISA {
namespace {

// The largest and the smallest of some numbers, and zero if all are numbers.
struct Extent {
  Floats highs, lows, rest;

  INLINE void add(Floats x) {
    highs = max(highs, x);
    lows = min(lows, x);
    rest = fma(x, broadcast(0.0f), rest);
  }
};

// As matmul_int8.cpp's rows: scale and middle of the range, and what numbers are multiplied with.
INLINE Int8Range range_of(const float* x, size_t padded, float& inverse) {
  const Floats zero = broadcast(0.0f);
  Extent even = {load(x), load(x), zero}, odd = even;
  for (size_t i = 0; i < padded; i += 2 * WIDTH) {
    even.add(load(x + i));
    odd.add(load(x + i + WIDTH));
  }
  inverse = 0.0f;
  const float high = peak(max(even.highs, odd.highs));
  const float low = -peak(sub(zero, min(even.lows, odd.lows)));
  const float middle = 0.5f * high + 0.5f * low, most = high - middle;
  // Of zero times an infinite number or none; the row's outputs are to be none either.
  if (sum(add(even.rest, odd.rest)) != 0.0f) return {__builtin_nanf(""), 0.0f};
  if (most < 1e-30f) return {0.0f, middle};  // and what a division by it would make infinite
  inverse = 127.0f / most;
  return {most / 127.0f, middle};
}

// One row, normed and padded, then rounded to bytes that are moved up by 128: [step][STEP].
INLINE Int8Range quantize_row(const Int8Weight& weight, const float* x, uint8_t* to) {
  alignas(64) float numbers[INT8_INPUTS];
  const float* row = numbers;
  if (weight.norm != nullptr)
    layer_norm(weight.norm, weight.inputs, weight.epsilon, x, numbers);
  else if (weight.inputs == weight.padded)
    row = x;
  else
    memcpy(numbers, x, weight.inputs * sizeof(float));
  // With a number of the row, which leaves its range as it is.
  for (size_t i = weight.inputs; i < weight.padded; i++) numbers[i] = row[0];
  float factor;
  const Int8Range range = range_of(row, weight.padded, factor);
  const Floats centre = broadcast(range.middle), inverse = broadcast(factor);
  for (size_t i = 0; i < weight.padded; i += INT8_STEP, to += STEP) {
    const auto rounded = [&](size_t j) __attribute__((always_inline)) {
      return to_ints(mul(sub(load(row + i + j * WIDTH), centre), inverse));
    };
    const Ints low = _mm512_packs_epi32(rounded(0), rounded(1));
    const Ints high = _mm512_packs_epi32(rounded(2), rounded(3));
    const Ints bytes = in_order(_mm512_packs_epi16(low, high));
    _mm512_store_si512(to, _mm512_xor_si512(bytes, _mm512_set1_epi8(-128)));
  }
  return range;
}

// A tile's bytes lie together: [step][32][64].
void quantize(const Int8Weight& weight, const float* x, size_t rows, const Int8Rows& tile) {
  for (size_t row = 0; row < rows; row++)
    tile.ranges[row] =
        quantize_row(weight, x + row * weight.inputs, tile.bytes + row * INT8_STEP);
}

void multiply(const Int8Weight& weight, const Int8Rows& block, size_t rows, size_t begin,
              size_t end, const float* residual, float* out) {
  begin_tiles();
  for (size_t first = 0; first < rows; first += BATCH * ROWS) {
    const size_t tiles = least(BATCH, (rows - first + ROWS - 1) / ROWS);
    size_t column = 0;
    Columns columns;
    const auto prepare = [&](size_t index) __attribute__((always_inline)) {
      column = index * INT8_LANES;
      columns.read(weight, index);
    };
    const auto finish = [&](const int32_t* sums, size_t row) __attribute__((always_inline)) {
      const size_t at = first + row;
      if (at >= rows) return;
      const Int8Range range = block.ranges[at];
#pragma unroll
      for (size_t j = 0; j < 2; j++) {
        const size_t to = at * weight.outputs + column + j * WIDTH;
        const Ints whole = add(columns.starts[j], load_ints(sums + j * WIDTH));
        const Floats middles = mul(columns.totals[j], broadcast(range.middle));
        const Floats product = fma(to_floats(whole), broadcast(range.scale), middles);
        Floats made = fma(product, columns.gains[j], columns.biases[j]);
        made = activated(made, weight.activation);
        if (residual != nullptr)
          made = add(made, _mm512_maskz_loadu_ps(columns.exist[j], residual + to));
        _mm512_mask_storeu_ps(out + to, columns.exist[j], made);
      }
    };
    multiply_batch(weight, block.bytes + first * weight.padded, tiles, begin, end, prepare,
                   finish);
  }
  _tile_release();
}

}  // namespace

const Int8Kernel MATMUL_INT8 = {ROWS, 0, quantize, multiply};

}  // namespace TANDEM_ISA
