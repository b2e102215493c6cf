// The INT4 product, as one instruction set computes it. See matmul.cpp.
#pragma once
#include <stddef.h>
#include <stdint.h>

// The layout of a weight. The same numbers stand in kernels/layout.py, which packs it;
// tests/unit/kernels/test_layout.py compares them.
constexpr int TILE_OUTPUTS = 32;     // outputs side by side; of a gated product 16 and their ups
constexpr int BLOCK_SIZE_STEP = 16;  // inputs of the widest register: a block fills whole ones
constexpr int MOST_BLOCK_SIZE = 256;

struct Weight {
  const uint8_t* values;  // [tiles, blocks, block_size / 8, 4 * TILE_OUTPUTS]
  const float* scales;    // [tiles, blocks, TILE_OUTPUTS]
  size_t tiles;           // of the outputs
  size_t blocks;          // ceil(inputs / block_size)
  size_t block_size;
  size_t inputs;   // K
  size_t outputs;  // N, of the product or, gated, of the gate
  bool gated;      // the result is silu(gate) * up
};

// Activations in 8 bits, in tiles of neighbouring rows. A tile begins where its rows would.
struct Activations {
  int32_t* quads;   // [padded inputs / 4, rows of the tile], four int8 each
  int32_t* starts;  // [blocks, rows of the tile], -8 * sum of a block's int8 values
  float* scales;    // [blocks, rows of the tile]
};

struct MatMulKernel {
  int row_tile;  // rows computed together, at most
  // Quantizes blocks [begin, end) of `rows` rows of x [rows, inputs] for one tile.
  void (*quantize)(const Weight& weight, const float* x, size_t rows, size_t begin, size_t end,
                   const Activations& tile);
  // Outputs of weight tiles [begin, end) for the `rows` rows of a tile, into out [rows, outputs].
  void (*multiply)(const Weight& weight, const Activations& tile, size_t rows, size_t begin,
                   size_t end, float* out);
};

namespace avx512 {
extern const MatMulKernel MATMUL;
}
namespace avxvnni {
extern const MatMulKernel MATMUL;
}
namespace avx2 {
extern const MatMulKernel MATMUL;
}
