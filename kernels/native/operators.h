// The operators of the library, each defined in the file of its name.
#pragma once
#include "onnxruntime.h"

extern const ort::Operator MATMUL_INT4;  // matmul_op.cpp
extern const ort::Operator ATTENTION;    // attention_op.cpp
