// Products of float32 weights with float32 activations. What surrounds a product in a transformer
// is done while its numbers are at hand: the layer norm before it, bias, activation and the sum
// with the residual stream after it.
//
// A weight's tile has 32 outputs side by side, as float_layout.py packs them; the activations'
// rows are laid out in the same way, so both are read from beginning to end. Inputs are taken in
// blocks whose weights stay in a cache while the rows pass. A block's sums begin at zero and blocks
// are added in their order, whatever the number of rows and threads: a row's result does not depend
// on what is computed beside it, and long sums lose less than one chain would.
#include "matmul_float.h"

#include <string.h>

#include "around.h"
#include "tiles.h"

namespace TANDEM_ISA {
namespace {

constexpr size_t COLUMNS = 2;              // registers of sums a row
constexpr size_t PART = COLUMNS * WIDTH;   // outputs of them; AVX2 takes a tile in two parts

// A row, normed and padded with zeros.
INLINE void prepare(const FloatWeight& weight, const float* x, float* row) {
  if (weight.norm != nullptr)
    layer_norm(weight.norm, weight.inputs, weight.epsilon, x, row);
  else
    memcpy(row, x, weight.inputs * sizeof(float));
  for (size_t i = weight.inputs; i < weight.padded; i++) row[i] = 0;
}

// Which of the blocks of inputs the sums are of.
struct Place {
  bool is_first, is_last;
};

INLINE void add_whole(const FloatWeight& weight, const Floats (&sums)[COLUMNS], size_t column,
                      Place place, const float* residual, float* out) {
#pragma unroll
  for (size_t j = 0; j < COLUMNS; j++) {
    const size_t at = j * WIDTH;
    Floats made = add(sums[j], place.is_first ? load(weight.biases + column + at) : load(out + at));
    if (place.is_last) {
      made = activated(made, weight.activation);
      if (residual != nullptr) made = add(made, load(residual + at));
    }
    store(out + at, made);
  }
}

// Adds a block's sums to the outputs of a row, from output `column` of the product on; `out` and
// `residual` begin there.
INLINE void add_sums(const FloatWeight& weight, const Floats (&sums)[COLUMNS], size_t column,
                     Place place, const float* residual, float* out) {
  const size_t left = weight.outputs - column;
  if (left >= PART) return add_whole(weight, sums, column, place, residual, out);
  float made[PART] = {}, added[PART] = {};
  memcpy(made, out, left * sizeof(float));
  if (residual != nullptr) memcpy(added, residual, left * sizeof(float));
  add_whole(weight, sums, column, place, added, made);
  memcpy(out, made, left * sizeof(float));
}

#if defined(__AMX_INT8__)

constexpr size_t ROWS = SIDE;
constexpr size_t GROUP = 512;  // splitting a weight into pieces takes as long as 30 rows
constexpr size_t DEPTH = 16;  // steps of a block: the pieces of a part's weights fill 384 KiB

// A panel is [row tile][step][STEP_BYTES].
template <size_t PIECES>
void pack(const FloatWeight& weight, const float* x, size_t rows, uint8_t* tile) {
  alignas(64) float row[FLOAT_INPUTS];
  memset(row, 0, weight.padded * sizeof(float));
  for (size_t i = 0; i < ROWS; i++) {
    if (i < rows)
      prepare(weight, x + i * weight.inputs, row);
    else if (i == rows)
      memset(row, 0, weight.padded * sizeof(float));
    for (size_t k = 0; k < weight.padded; k += PIECE_STEP)
      store_row<PIECES>(row + k, i, tile + k / PIECE_STEP * STEP_BYTES<PIECES>);
  }
}

// The weights of `steps` steps of one tile.
template <size_t PIECES>
INLINE void split(const float* values, size_t steps, uint8_t* columns) {
  for (size_t step = 0; step < steps; step++, columns += STEP_BYTES<PIECES>)
    for (size_t pair = 0; pair < TILE_ROWS; pair++, values += 2 * FLOAT_LANES)
      for (size_t half = 0; half < COLUMNS; half++)
        store_pair<PIECES>(load(values + half * WIDTH), load(values + half * WIDTH + FLOAT_LANES),
                           pair, half, columns);
}

// Adds the sums [tile][32, 32] of all tiles of a part, row by row, so that what is written lies
// together.
INLINE void add_rows(const FloatWeight& weight, const FloatPart& part, size_t first, Place place,
                     const float (*sums)[SIDE * SIDE]) {
  const size_t rows = part.rows - first < ROWS ? part.rows - first : ROWS;
  for (size_t i = 0; i < rows; i++)
    for (size_t index = part.begin; index < part.end; index++) {
      const float* from = sums[index - part.begin] + i * SIDE;
      const Floats made[COLUMNS] = {load(from), load(from + WIDTH)};
      const size_t column = index * FLOAT_LANES, at = (first + i) * weight.outputs + column;
      add_sums(weight, made, column, place,
               part.residual == nullptr ? nullptr : part.residual + at, part.out + at);
    }
}

template <size_t PIECES>
void multiply(const FloatWeight& weight, const FloatPart& part) {
  alignas(64) uint8_t columns[FLOAT_TILES][DEPTH * STEP_BYTES<PIECES>];
  alignas(64) float sums[FLOAT_TILES][SIDE * SIDE];
  begin_tiles();
  const size_t all = weight.padded / PIECE_STEP;
  for (size_t first = 0; first < all; first += DEPTH) {
    const size_t steps = all - first < DEPTH ? all - first : DEPTH;
    const Place place = {first == 0, first + steps == all};
    for (size_t index = part.begin; index < part.end; index++)
      split<PIECES>(weight.values + (index * weight.padded + first * PIECE_STEP) * FLOAT_LANES,
                    steps, columns[index - part.begin]);
    for (size_t row = 0; row < part.rows; row += ROWS) {
      for (size_t index = part.begin; index < part.end; index++) {
        const uint8_t* rows = part.panel + (row / ROWS * all + first) * STEP_BYTES<PIECES>;
        // A quarter of the next rows with each of the four tiles.
        const uint8_t* next = rows + all * STEP_BYTES<PIECES> +
                              (index - part.begin) * steps * AHEAD_BYTES<PIECES>;
        multiply_pieces<PIECES>(rows, columns[index - part.begin], steps, next,
                                sums[index - part.begin]);
      }
      add_rows(weight, part, row, place, sums);
    }
  }
  _tile_release();
}

#else

constexpr size_t ROWS = WIDTH == 16 ? 14 : 6;  // what the registers have room for
constexpr size_t GROUP = ROWS * 20;            // their block of inputs stays in the second cache
constexpr size_t DEPTH = 256;  // inputs of a block: its weights stay in the first cache

// A panel is [row tile][padded][ROWS].
void pack(const FloatWeight& weight, const float* x, size_t rows, uint8_t* tile) {
  alignas(64) float row[FLOAT_INPUTS];
  float* to = reinterpret_cast<float*>(tile);
  if (rows < ROWS) memset(to, 0, weight.padded * ROWS * sizeof(float));
  for (size_t i = 0; i < rows; i++) {
    prepare(weight, x + i * weight.inputs, row);
    for (size_t k = 0; k < weight.padded; k++) to[k * ROWS + i] = row[k];
  }
}

// Sums of a row tile and a part of a weight tile over `depth` inputs.
INLINE void block_sums(const float* rows, const float* values, size_t depth,
                       Floats (&sums)[ROWS][COLUMNS]) {
#pragma unroll
  for (size_t m = 0; m < ROWS; m++)
#pragma unroll
    for (size_t j = 0; j < COLUMNS; j++) sums[m][j] = broadcast(0.0f);
  for (size_t k = 0; k < depth; k++) {
    Floats weights[COLUMNS];
#pragma unroll
    for (size_t j = 0; j < COLUMNS; j++) weights[j] = load(values + j * WIDTH);
#pragma unroll
    for (size_t m = 0; m < ROWS; m++) {
      const Floats x = broadcast(rows[m]);
#pragma unroll
      for (size_t j = 0; j < COLUMNS; j++) sums[m][j] = fma(x, weights[j], sums[m][j]);
    }
    rows += ROWS;
    values += FLOAT_LANES;
  }
}

// One block of inputs for the outputs from `column` on.
INLINE void multiply_block(const FloatWeight& weight, const FloatPart& part, size_t column,
                           size_t first, size_t depth) {
  const Place place = {first == 0, first + depth == weight.padded};
  const float* values = weight.values + column % FLOAT_LANES +
                        (column / FLOAT_LANES * weight.padded + first) * FLOAT_LANES;
  const float* panel = reinterpret_cast<const float*>(part.panel);
  for (size_t row = 0; row < part.rows; row += ROWS) {
    Floats sums[ROWS][COLUMNS];
    block_sums(panel + row * weight.padded + first * ROWS, values, depth, sums);
    const size_t rows = part.rows - row < ROWS ? part.rows - row : ROWS;
    for (size_t i = 0; i < rows; i++) {
      const size_t at = (row + i) * weight.outputs + column;
      add_sums(weight, sums[i], column, place,
               part.residual == nullptr ? nullptr : part.residual + at, part.out + at);
    }
  }
}

void multiply(const FloatWeight& weight, const FloatPart& part) {
  const size_t end = part.end * FLOAT_LANES;
  for (size_t first = 0; first < weight.padded; first += DEPTH) {
    const size_t left = weight.padded - first, depth = left < DEPTH ? left : DEPTH;
    for (size_t at = part.begin * FLOAT_LANES; at < end && at < weight.outputs; at += PART)
      multiply_block(weight, part, at, first, depth);
  }
}

#endif

}  // namespace

#if defined(__AMX_INT8__)
const FloatKernel MATMUL_FLOAT = {ROWS, GROUP, 2 * EXACT, pack<EXACT>, multiply<EXACT>};
const FloatKernel MATMUL_COARSE = {ROWS, GROUP, 2 * COARSE, pack<COARSE>, multiply<COARSE>};
#else
const FloatKernel MATMUL_FLOAT = {ROWS, GROUP, sizeof(float), pack, multiply};
#endif

}  // namespace TANDEM_ISA
