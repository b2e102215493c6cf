// Products of INT8 weights, one scale an output, with activations that are quantized to int8, one
// scale a row. The bytes of a row stand for what lies around the middle of its range, which for
// what GELU gives is far from zero; the middle's share in a product is that of the weights' sum. Sums are exact integers on every instruction set. What surrounds a product in a
// transformer is done while its numbers are in registers: the layer norm before it, bias, GELU and
// the sum with the residual stream after it.
//
// A register holds four neighbouring inputs of 16 (AVX2: 8) outputs, as int8_layout.py packs them,
// which is what a dot product instruction takes, and what a matrix tile (AMX) holds 16 rows of.
#include "matmul_int8.h"

#include <string.h>

#include "around.h"
#include "int8.h"
#include "tiles.h"

namespace TANDEM_ISA {
namespace {

constexpr size_t COLUMNS = 2;                     // registers of sums a row
constexpr size_t PART = COLUMNS * WIDTH;          // outputs of them; AVX2 takes a tile in two parts
constexpr size_t STRIDE = INT8_LANES * 4;         // bytes of four inputs of a weight tile

// ---------------------------------------------------------------------------------------------
// Before the product

// Rounds a row to bytes, moved up by the offset. Both arrays reach to the padding's end.
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
  for (size_t i = 0; i < padded; i++) bytes[i] ^= BYTE_OFFSET;
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
INLINE void write(const Int8Weight& weight, const Ints (&sums)[COLUMNS], Int8Range range,
                  size_t column, const float* residual, float* out) {
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

#if defined(__AMX_INT8__)

constexpr size_t ROWS = 32;       // two tiles of activations by two of weights: four of sums

// A tile's bytes lie together: [row tile of 16][step][16][64].
void quantize(const Int8Weight& weight, const float* x, size_t rows, const Int8Rows& tile) {
  alignas(64) uint8_t bytes[INT8_INPUTS];
  const size_t steps = weight.padded / INT8_STEP;
  for (size_t row = 0; row < rows; row++) {
    tile.ranges[row] = quantize_row(weight, x + row * weight.inputs, bytes);
    uint8_t* to = tile.bytes + row / TILE_ROWS * TILE_ROWS * weight.padded +
                  row % TILE_ROWS * INT8_STEP;
    for (size_t step = 0; step < steps; step++)
      memcpy(to + step * TILE_BYTES, bytes + step * INT8_STEP, INT8_STEP);
  }
}

// sums [32, 32] of one weight tile for two row tiles.
INLINE void tile_sums(const Int8Weight& weight, const uint8_t* bytes, size_t index,
                      int32_t (*sums)[INT8_LANES]) {
  const int8_t* values = weight.values + index * weight.padded * INT8_LANES;
  const uint8_t* more = bytes + TILE_ROWS * weight.padded;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (size_t step = 0; step < weight.padded / INT8_STEP; step++) {
    _tile_loadd(6, values, STRIDE);
    _tile_loadd(4, bytes, TILE_ROW_BYTES);
    _tile_dpbusd(0, 4, 6);
    _tile_loadd(7, values + STRIDE / 2, STRIDE);
    _tile_dpbusd(1, 4, 7);
    _tile_loadd(5, more, INT8_STEP);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
    values += TILE_ROWS * STRIDE;
    bytes += TILE_BYTES;
    more += TILE_BYTES;
  }
  _tile_stored(0, sums[0], STRIDE);
  _tile_stored(1, sums[0] + WIDTH, STRIDE);
  _tile_stored(2, sums[TILE_ROWS], STRIDE);
  _tile_stored(3, sums[TILE_ROWS] + WIDTH, STRIDE);
}

void multiply(const Int8Weight& weight, const Int8Rows& tile, size_t rows, size_t begin,
              size_t end, const float* residual, float* out) {
  begin_tiles();
  alignas(64) int32_t sums[ROWS][INT8_LANES];
  for (size_t index = begin; index < end; index++) {
    tile_sums(weight, tile.bytes, index, sums);
    const size_t column = index * INT8_LANES;
    const Ints starts[COLUMNS] = {start_of(load_ints(weight.sums + column)),
                                  start_of(load_ints(weight.sums + column + WIDTH))};
    for (size_t row = 0; row < rows; row++) {
      const Ints made[COLUMNS] = {add(starts[0], load_ints(sums[row])),
                                  add(starts[1], load_ints(sums[row] + WIDTH))};
      const size_t at = row * weight.outputs;
      write(weight, made, tile.ranges[row], column, residual == nullptr ? nullptr : residual + at,
            out + at);
    }
  }
  _tile_release();
}

#else

#if defined(__AVX512VNNI__)
constexpr size_t ROWS = 12;  // what the registers have room for
#elif defined(__AVXVNNI__)
constexpr size_t ROWS = 6;
#else
constexpr size_t ROWS = 4;
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

template <size_t M>
INLINE void multiply_part(const Int8Weight& weight, const Int8Rows& tile, const int8_t* values,
                          size_t column, const float* residual, float* out) {
  Ints sums[M][COLUMNS];
#pragma unroll
  for (size_t j = 0; j < COLUMNS; j++) {
    const Ints start = start_of(load_ints(weight.sums + column + j * WIDTH));
#pragma unroll
    for (size_t m = 0; m < M; m++) sums[m][j] = start;
  }
  const uint8_t* bytes = tile.bytes;
  for (size_t i = 0; i < weight.padded; i += 4) {
    Ints weights[COLUMNS];
#pragma unroll
    for (size_t j = 0; j < COLUMNS; j++) weights[j] = load_ints(values + j * WIDTH * 4);
#pragma unroll
    for (size_t m = 0; m < M; m++) {
      int32_t four;
      memcpy(&four, bytes + m * 4, 4);
      const Quad x = quad(four);
#pragma unroll
      for (size_t j = 0; j < COLUMNS; j++) sums[m][j] = dot_signed(sums[m][j], x, weights[j]);
    }
    values += STRIDE;
    bytes += M * 4;
  }
  for (size_t m = 0; m < M; m++) {
    const size_t at = m * weight.outputs;
    write(weight, sums[m], tile.ranges[m], column, residual == nullptr ? nullptr : residual + at,
          out + at);
  }
}

template <size_t M>
INLINE void multiply_rows(const Int8Weight& weight, const Int8Rows& tile, size_t begin, size_t end,
                          const float* residual, float* out) {
  for (size_t index = begin; index < end; index++)
    for (size_t part = 0; part < INT8_LANES; part += PART) {
      const size_t column = index * INT8_LANES + part;
      if (column >= weight.outputs) return;
      multiply_part<M>(weight, tile, weight.values + index * weight.padded * INT8_LANES + part * 4,
                       column, residual, out);
    }
}

template <size_t M>
void multiply_or_fewer(const Int8Weight& weight, const Int8Rows& tile, size_t rows, size_t begin,
                       size_t end, const float* residual, float* out) {
  if constexpr (M > 0) {
    if (rows == M) return multiply_rows<M>(weight, tile, begin, end, residual, out);
    multiply_or_fewer<M - 1>(weight, tile, rows, begin, end, residual, out);
  }
}

void multiply(const Int8Weight& weight, const Int8Rows& tile, size_t rows, size_t begin,
              size_t end, const float* residual, float* out) {
  multiply_or_fewer<ROWS>(weight, tile, rows, begin, end, residual, out);
}

#endif

}  // namespace

const Int8Kernel MATMUL_INT8 = {ROWS, quantize, multiply};

}  // namespace TANDEM_ISA
