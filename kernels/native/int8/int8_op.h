// What operators of INT8 products have in common: their weights among a node's inputs, and products
// on the session's threads.
#pragma once
#include "matmul_int8.h"
#include "operator.h"
#include "product.h"

constexpr size_t INT8_PARTS = 4;  // inputs of a weight: values, scales, sums, biases

// The type of a weight's input.
constexpr ort::ElementType int8_input_type(size_t part) {
  return part == 0 ? ort::INT8 : part == 2 ? ort::INT32 : ort::FLOAT;
}

constexpr ProductLimits int8_limits(const char* refusal) {
  return {INT8_INPUTS, INT8_STEP, INT8_LANES, refusal};
}

// Reads the inputs from `index` on into a weight, whose shape is known; refuses what does not fit.
void read_int8(Run& run, size_t index, const char* refusal, Int8Weight& weight);

// activation(norm(x) @ weight + bias) + residual, of x [rows, K]; `residual` may be null.
void multiply_int8(Run& run, const Int8Weight& weight, const float* x, size_t rows,
                   const float* residual, float* out);
