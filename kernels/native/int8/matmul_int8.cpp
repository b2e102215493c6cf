// Products of INT8 weights, one scale an output, with activations that are quantized to int8, one
// scale a row. The bytes of a row stand for what lies around the middle of its range, which for
// what GELU gives is far from zero; the middle's share in a product is that of the weights' sum.
// Sums are exact integers on every instruction set. What surrounds a product in a transformer is
// done while its numbers are in registers: the layer norm before it, bias, GELU and the sum with
// the residual stream after it.
//
// A register holds four neighbouring inputs of 16 (AVX2: 8) outputs, as int8_layout.py packs them,
// which is what a dot product instruction takes, and what a matrix tile (AMX) holds 16 rows of
// (matmul_int8_tiles.cpp).
#include "matmul_int8.h"

#include <string.h>

#include "around.h"
#include "int8.h"
#include "int8_panel.h"

namespace TANDEM_ISA {
namespace {

// ---------------------------------------------------------------------------------------------
// Before the product

// Rounds a row to bytes, moved up by 128. Both arrays reach to the padding's end.
INLINE Int8Range to_bytes(const float* x, size_t padded, uint8_t* bytes) {
  Floats highs = load(x), lows = highs;
  for (size_t i = WIDTH; i < padded; i += WIDTH) {
    highs = max(highs, load(x + i));
    lows = min(lows, load(x + i));
  }
  const float high = peak(highs), low = -peak(sub(broadcast(0.0f), lows));
  const float middle = 0.5f * high + 0.5f * low, most = high - middle;
  const bool is_flat = most < 1e-30f;  // and what a division by it would make infinite
  const Floats inverse = broadcast(is_flat ? 0.0f : 127.0f / most), centre = broadcast(middle);
  for (size_t i = 0; i < padded; i += WIDTH) {
    const Ints rounded = to_ints(mul(sub(load(x + i), centre), inverse));
    store_bytes(reinterpret_cast<int8_t*>(bytes + i), rounded);
  }
  for (size_t i = 0; i < padded; i++) bytes[i] ^= 128;
  return {is_flat ? 0.0f : most / 127.0f, middle};
}

// Whether no number is infinite or none at all; both make a NaN of zero times them.
INLINE bool is_finite(const float* x, size_t padded) {
  Floats total = broadcast(0.0f);
  for (size_t i = 0; i < padded; i += WIDTH) total = fma(load(x + i), broadcast(0.0f), total);
  return sum(total) == 0.0f;
}

// One row, normed and padded, then rounded.
INLINE Int8Range quantize_row(const Int8Weight& weight, const float* x, uint8_t* bytes) {
  alignas(64) float row[INT8_INPUTS];
  if (weight.norm != nullptr)
    layer_norm(weight.norm, weight.inputs, weight.epsilon, x, row);
  else
    memcpy(row, x, weight.inputs * sizeof(float));
  // With a number of the row, which leaves its range as it is.
  for (size_t i = weight.inputs; i < weight.padded; i++) row[i] = row[0];
  const Int8Range range = to_bytes(row, weight.padded, bytes);
  // What is no number has no range; the row's outputs are to be NaN too.
  return is_finite(row, weight.padded) ? range : Int8Range{__builtin_nanf(""), 0.0f};
}

// ---------------------------------------------------------------------------------------------
// After the product

// Writes the outputs of one row of sums, from output `column` of the product on.
template <size_t COLUMNS>  // registers of them
INLINE void write(const Int8Weight& weight, const Ints (&sums)[COLUMNS], Int8Range range,
                  size_t column, const float* residual, float* out) {
  constexpr size_t PART = COLUMNS * WIDTH;
  const size_t left = weight.outputs - column;
  alignas(64) float edge[PART];
  float* to = left < PART ? edge : out + column;
#pragma unroll
  for (size_t j = 0; j < COLUMNS; j++) {
    const size_t at = column + j * WIDTH;
    const Floats middles = mul(to_floats(load_ints(weight.sums + at)), broadcast(range.middle));
    const Floats product = fma(to_floats(sums[j]), broadcast(range.scale), middles);
    Floats made = fma(product, load(weight.scales + at), load(weight.biases + at));
    made = activated(made, weight.activation);
    if (residual != nullptr && left >= PART) made = add(made, load(residual + at));
    store(to + j * WIDTH, made);
  }
  if (left >= PART) return;
  for (size_t i = 0; i < left; i++)
    out[column + i] = edge[i] + (residual != nullptr ? residual[column + i] : 0.0f);
}

// ---------------------------------------------------------------------------------------------
// The product

// A block's tile that begins with row `first`.
INLINE Int8Rows tile_of(const Int8Weight& weight, const Int8Rows& block, size_t first) {
  return {block.bytes + first * weight.padded, block.ranges + first};
}

INLINE const float* row_of(const Int8Weight& weight, const float* residual, size_t row) {
  return residual == nullptr ? nullptr : residual + row * weight.outputs;
}

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
constexpr size_t LEAST_ROWS = 0;
#else
constexpr size_t LEAST_ROWS = 256;  // so that laying out a panel is a small part of the work
#endif

#if defined(__AVX512VNNI__)
constexpr size_t ROWS = 12;  // what the registers have room for
#elif defined(__AVXVNNI__)
constexpr size_t ROWS = 6;
#else
constexpr size_t ROWS = 10;
#endif

// Four bytes of every row of a tile lie together: [padded / 4][rows][4].
void quantize(const Int8Weight& weight, const float* x, size_t rows, const Int8Rows& tile) {
  alignas(64) uint8_t bytes[INT8_INPUTS];
  for (size_t row = 0; row < rows; row++) {
    tile.ranges[row] = quantize_row(weight, x + row * weight.inputs, bytes);
    for (size_t i = 0; i < weight.padded; i += 4)
      memcpy(tile.bytes + i * rows + row * 4, bytes + i, 4);
  }
}

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)

constexpr size_t COLUMNS = 2;  // registers of sums a row
using Weights = const int8_t*;  // as they lie
INLINE void lay_out(const int8_t* values, size_t, Weights& weights) { weights = values; }

template <size_t M>
INLINE void add_products(Weights values, const uint8_t* bytes, size_t fours,
                         Ints (&sums)[M][COLUMNS]) {
  for (size_t i = 0; i < fours; i++) {
    Ints weights[COLUMNS];
#pragma unroll
    for (size_t j = 0; j < COLUMNS; j++) weights[j] = load_ints(values + j * WIDTH * 4);
#pragma unroll
    for (size_t m = 0; m < M; m++) {
      int32_t four;
      memcpy(&four, bytes + m * 4, 4);
      const Ints x = broadcast(four);
#pragma unroll
      for (size_t j = 0; j < COLUMNS; j++) sums[m][j] = dot(sums[m][j], x, weights[j]);
    }
    values += INT8_STRIDE;
    bytes += M * 4;
  }
}

#else

constexpr size_t COLUMNS = 1;
using Weights = Panel;

#endif

constexpr size_t PART = COLUMNS * WIDTH;  // outputs computed together

// The M rows of a tile.
template <size_t M>
INLINE void multiply_tile(const Int8Weight& weight, const Int8Rows& tile, const Weights& weights,
                          size_t column, const float* residual, float* out) {
  Ints sums[M][COLUMNS];
#pragma unroll
  for (size_t j = 0; j < COLUMNS; j++) {
    const Ints start = start_of(load_ints(weight.sums + column + j * WIDTH));
#pragma unroll
    for (size_t m = 0; m < M; m++) sums[m][j] = start;
  }
  add_products<M>(weights, tile.bytes, weight.padded / 4, sums);
  for (size_t m = 0; m < M; m++)
    write(weight, sums[m], tile.ranges[m], column, row_of(weight, residual, m),
          out + m * weight.outputs);
}

template <size_t M>
INLINE void multiply_or_fewer(const Int8Weight& weight, const Int8Rows& tile, size_t rows,
                              const Weights& weights, size_t column, const float* residual,
                              float* out) {
  if constexpr (M > 0) {
    if (rows >= M) return multiply_tile<M>(weight, tile, weights, column, residual, out);
    multiply_or_fewer<M - 1>(weight, tile, rows, weights, column, residual, out);
  }
}

INLINE void multiply_by(const Int8Weight& weight, const Int8Rows& block, size_t rows, size_t index,
                        const float* residual, float* out) {
  const int8_t* values = weight.values + index * weight.padded * INT8_LANES;
  const size_t begin = index * INT8_LANES, left = weight.outputs - begin;
  for (size_t part = 0; part < INT8_LANES && part < left; part += PART) {
    Weights weights;
    lay_out(values + part * 4, weight.padded / 4, weights);
    for (size_t first = 0; first < rows; first += ROWS)
      multiply_or_fewer<ROWS>(weight, tile_of(weight, block, first), rows - first, weights,
                              begin + part, row_of(weight, residual, first),
                              out + first * weight.outputs);
  }
}

void multiply(const Int8Weight& weight, const Int8Rows& block, size_t rows, size_t begin,
              size_t end, const float* residual, float* out) {
  // A weight tile stays in the first cache while the rows pass.
  for (size_t index = begin; index < end; index++)
    multiply_by(weight, block, rows, index, residual, out);
}

}  // namespace

const Int8Kernel MATMUL_INT8 = {ROWS, LEAST_ROWS, quantize, multiply};

}  // namespace TANDEM_ISA
