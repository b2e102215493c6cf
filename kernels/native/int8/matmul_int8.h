// The INT8 product, as one instruction set computes it. See matmul_int8.cpp.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "activation.h"

// Limits and units that kernels/int8_layout.py states too.
constexpr size_t INT8_LANES = 32;      // outputs of a weight tile
constexpr size_t INT8_STEP = 64;       // inputs are padded to whole steps
constexpr size_t INT8_INPUTS = 16384;  // at most
constexpr size_t INT8_STRIDE = INT8_LANES * 4;  // bytes of four inputs of a weight tile

struct Int8Weight {
  const int8_t* values;  // [tiles, padded / 4, 128]
  const float* scales;   // [tiles, 32]
  const int32_t* sums;   // [tiles, 32], of an output's values
  const float* biases;   // [tiles, 32]
  const float* norm;     // [2, inputs], a layer norm's weights and biases; null for none
  size_t tiles;
  size_t inputs, padded;  // K, and K rounded up to steps
  size_t outputs;         // N
  float epsilon;          // of the norm
  Activation activation;
};

// A row's numbers are scale * byte + middle.
struct Int8Range {
  float scale, middle;
};

// Rows in 8 bits; in tiles of neighbouring rows, as the kernel reads them.
struct Int8Rows {
  uint8_t* bytes;     // of the tile, `padded` a row
  Int8Range* ranges;  // [rows of the tile]
};

struct Int8Kernel {
  size_t row_tile;    // rows of a tile, all but the last of which are whole
  size_t least_rows;  // multiplied together, where there are as many: `multiply` prepares for them
  // Norms and quantizes the `rows` rows of x [rows, inputs] of one tile.
  void (*quantize)(const Int8Weight& weight, const float* x, size_t rows, const Int8Rows& tile);
  // Outputs of some weight tiles for neighbouring rows, whose tiles begin with `block` and lie one
  // after another, into out [rows, outputs]; `residual`, where not null, is added.
  void (*multiply)(const Int8Weight& weight, const Int8Rows& block, size_t rows, size_t begin,
                   size_t end, const float* residual, float* out);
};

namespace amx {
extern const Int8Kernel MATMUL_INT8;
}
namespace avx512 {
extern const Int8Kernel MATMUL_INT8;
}
namespace avxvnni {
extern const Int8Kernel MATMUL_INT8;
}
namespace avx2 {
extern const Int8Kernel MATMUL_INT8;
}
