// The tower's float32 product, as one instruction set computes it. See matmul_float.cpp.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "activation.h"

// Limits and units that kernels/float_layout.py states too.
constexpr size_t FLOAT_LANES = 32;      // outputs of a weight tile
constexpr size_t FLOAT_STEP = 32;       // inputs are padded to whole steps
constexpr size_t FLOAT_INPUTS = 16384;  // at most

constexpr size_t FLOAT_TILES = 4;  // weight tiles of a part, at most

struct FloatWeight {
  const float* values;  // [tiles, padded, 32]
  const float* biases;  // [tiles, 32]
  const float* norm;    // [2, inputs], a layer norm's weights and biases; null for none
  size_t tiles;
  size_t inputs, padded;  // K, and K rounded up to steps
  size_t outputs;         // N
  float epsilon;          // of the norm
  Activation activation;
};

// What one thread takes: some rows, and some of the weight's tiles.
struct FloatPart {
  const uint8_t* panel;   // the rows as `pack` leaves them, tile after tile
  size_t rows;            // that exist
  size_t begin, end;      // weight tiles
  const float* residual;  // [rows, outputs], added; null for none
  float* out;             // [rows, outputs]
};

struct FloatKernel {
  size_t row_tile;     // rows that lie together in a panel; the last tile is whole too
  size_t group;        // rows of a part
  size_t number_size;  // bytes that a number takes in a panel
  // Norms the `rows` rows of x [rows, inputs] of one tile and lays them out for `multiply`.
  void (*pack)(const FloatWeight& weight, const float* x, size_t rows, uint8_t* tile);
  void (*multiply)(const FloatWeight& weight, const FloatPart& part);
};

namespace amx {
extern const FloatKernel MATMUL_FLOAT;
extern const FloatKernel MATMUL_COARSE;  // in bfloat16
}
namespace avx512 {
extern const FloatKernel MATMUL_FLOAT;
}
namespace avxvnni {
extern const FloatKernel MATMUL_FLOAT;
}
namespace avx2 {
extern const FloatKernel MATMUL_FLOAT;
}
