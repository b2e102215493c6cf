// What may follow a product of the tower, by the number that the operators' attribute has.
#pragma once
#include <stdint.h>

enum class Activation : int64_t { NONE, GELU_TANH, GELU };
