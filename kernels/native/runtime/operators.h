// The operators of the library, each defined in the file of its name.
#pragma once
#include "onnxruntime.h"

extern const ort::Operator MATMUL_INT4;  // matmul_op.cpp
extern const ort::Operator ATTENTION;    // attention_op.cpp
extern const ort::Operator MATMUL_FLOAT;     // matmul_float_op.cpp
extern const ort::Operator MATMUL_INT8;      // matmul_int8_op.cpp
extern const ort::Operator MLP_INT8;         // mlp_int8_op.cpp
extern const ort::Operator TOWER_ATTENTION;  // tower_attention_op.cpp
