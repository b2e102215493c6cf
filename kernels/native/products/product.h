// What the operators of the tower's products have in common: the attributes that they are made with.
#pragma once
#include "activation.h"
#include "operator.h"

// How a packed weight is laid out; `refusal` is said where an attribute is out of range.
struct ProductLimits {
  size_t inputs;       // most of them
  size_t step, lanes;  // what inputs and outputs are rounded up to
  const char* refusal;
};

// Reads K, N, activation and epsilon into a weight; null, or what is wrong.
template <class Weight>
ort::Status* read_product(const ort::Api& api, const ort::KernelInfo* info,
                          const ProductLimits& limits, Weight& weight) {
  int64_t inputs = 0, outputs = 0, activation = 0;
  ort::Status* status = api.attribute(info, "K", &inputs);
  if (status == nullptr) status = api.attribute(info, "N", &outputs);
  if (status == nullptr) status = api.attribute(info, "activation", &activation);
  if (status == nullptr) status = api.attribute(info, "epsilon", &weight.epsilon);
  if (status != nullptr) return status;
  if (inputs < 1 || outputs < 1 || inputs > int64_t(limits.inputs) || activation < 0 ||
      activation > int64_t(Activation::GELU))
    return api.error(ort::INVALID_ARGUMENT, limits.refusal);
  weight.inputs = inputs;
  weight.outputs = outputs;
  weight.padded = divided(inputs, limits.step) * limits.step;
  weight.tiles = divided(outputs, limits.lanes);
  weight.activation = static_cast<Activation>(activation);
  return nullptr;
}
