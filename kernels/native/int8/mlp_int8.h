// The MLP of a block, as matrix tiles (AMX) compute it. See mlp_int8_tiles.cpp.
#pragma once
#include "matmul_int8.h"

// The MLP of a block, second(activation(first(norm(x)))) + x. The activation is a GELU.
struct Int8Mlp {
  Int8Weight first, second;
};

constexpr size_t INT8_MLP_ROWS = 256;  // computed together, at most

struct Int8MlpKernel {
  size_t (*working_bytes)(const Int8Mlp& mlp, size_t rows);
  // Rows of x [rows, inputs] to those of out [rows, inputs], which may be the same ones.
  void (*compute)(const Int8Mlp& mlp, const float* x, size_t rows, uint8_t* working, float* out);
};

namespace amx {
extern const Int8MlpKernel MLP_INT8;
}
