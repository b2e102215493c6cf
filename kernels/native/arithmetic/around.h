// What surrounds a product of the tower, computed while its numbers are at hand: the layer norm
// before it, the activation after it.
#pragma once
#include "activation.h"
#include "simd.h"

namespace TANDEM_ISA {

INLINE float sum_of(const float* x, size_t count) {
  Floats total = broadcast(0.0f);
  size_t i = 0;
  for (; i + WIDTH <= count; i += WIDTH) total = add(total, load(x + i));
  float made = sum(total);
  for (; i < count; i++) made += x[i];
  return made;
}

INLINE float square_sum_of(const float* x, size_t count, float mean) {
  Floats total = broadcast(0.0f);
  size_t i = 0;
  for (; i + WIDTH <= count; i += WIDTH) {
    const Floats centred = sub(load(x + i), broadcast(mean));
    total = fma(centred, centred, total);
  }
  float made = sum(total);
  for (; i < count; i++) made += (x[i] - mean) * (x[i] - mean);
  return made;
}

// `norm` [2, count] has the weights and the biases.
// Source: ONNX LayerNormalization.
INLINE void layer_norm(const float* norm, size_t count, float epsilon, const float* x, float* out) {
  const float mean = sum_of(x, count) / float(count);
  const float variance = square_sum_of(x, count, mean) / float(count);
  const float inverse = 1.0f / __builtin_sqrtf(variance + epsilon);
  const float *gains = norm, *biases = norm + count;
  for (size_t i = 0; i < count; i++) out[i] = (x[i] - mean) * inverse * gains[i] + biases[i];
}

// Source: transformers PytorchGELUTanh, as x * sigmoid(2 * u).
INLINE Floats gelu_tanh(Floats x) {
  const Floats cube = mul(mul(x, x), x);
  const Floats u = mul(fma(cube, broadcast(0.044715f), x), broadcast(-2 * 0.7978845608028654f));
  return div(x, add(broadcast(1.0f), exp(u)));
}

// erf within 1.5e-7. Source: Abramowitz and Stegun, 7.1.26.
INLINE Floats gelu(Floats x) {
  const Floats scaled = mul(x, broadcast(0.7071067811865476f)), size = abs(scaled);
  const Floats t = div(broadcast(1.0f), fma(size, broadcast(0.3275911f), broadcast(1.0f)));
  Floats p = broadcast(1.061405429f);
  p = fma(p, t, broadcast(-1.453152027f));
  p = fma(p, t, broadcast(1.421413741f));
  p = fma(p, t, broadcast(-0.284496736f));
  p = fma(p, t, broadcast(0.254829592f));
  const Floats tail = mul(mul(p, t), exp(sub(broadcast(0.0f), mul(size, size))));
  // x * (1 + erf) / 2, from the positive side: |x| - |x| * tail / 2, or -|x| * tail / 2
  const Floats half = mul(mul(abs(x), broadcast(0.5f)), tail);
  return sub(max(x, broadcast(0.0f)), half);
}

INLINE Floats activated(Floats x, Activation activation) {
  if (activation == Activation::GELU_TANH) return gelu_tanh(x);
  if (activation == Activation::GELU) return gelu(x);
  return x;
}

}  // namespace TANDEM_ISA
