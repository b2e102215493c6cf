// Antialiased resizing of interleaved uint8 images: one pass over rows, one over columns.
//
// Weights are int16 with `precision` fraction bits; a sum is rounded by adding half and shifting,
// and clamped to a byte after each pass. This is the arithmetic of torch's uint8 kernel
// (aten/src/ATen/native/cpu/UpSampleKernelAVXAntialias.h) and of Pillow's before it, so the bytes
// are the same. Python makes the weights (kernels/resize.py).

#include <cstdint>

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

constexpr int CHANNELS = 3;

uint8_t to_byte(int32_t sum, int precision) {
  const int32_t value = sum >> precision;
  return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

}  // namespace

// Resizes along x. `source` is [rows, in_width, 3], `target` [rows, out_width, 3]; output pixel x
// is the sum of `sizes[x]` pixels from `starts[x]` on, weighted by `weights[x * taps ...]`.
EXPORTED void tandem_resize_x(
  const uint8_t* source, uint8_t* target, int64_t rows, int64_t in_width, int64_t out_width,
  const int32_t* starts, const int32_t* sizes, const int16_t* weights, int32_t taps,
  int32_t precision) {
  const int32_t half = 1 << (precision - 1);
  for (int64_t row = 0; row < rows; ++row) {
    const uint8_t* line = source + row * in_width * CHANNELS;
    uint8_t* out = target + row * out_width * CHANNELS;
    for (int64_t x = 0; x < out_width; ++x) {
      const uint8_t* pixel = line + int64_t{starts[x]} * CHANNELS;
      const int16_t* weight = weights + x * taps;
      int32_t red = half, green = half, blue = half;
      for (int32_t tap = 0; tap < sizes[x]; ++tap) {
        const int32_t w = weight[tap];
        red += w * pixel[0];
        green += w * pixel[1];
        blue += w * pixel[2];
        pixel += CHANNELS;
      }
      *out++ = to_byte(red, precision);
      *out++ = to_byte(green, precision);
      *out++ = to_byte(blue, precision);
    }
  }
}

// Resizes along y. `source` is [in_height, width, 3], `target` [out_height, width, 3]; `sums` is
// room for width * 3 numbers.
EXPORTED void tandem_resize_y(
  const uint8_t* source, uint8_t* target, int64_t first, int64_t last, int64_t width,
  const int32_t* starts, const int32_t* sizes, const int16_t* weights, int32_t taps,
  int32_t precision, int32_t* sums) {
  const int64_t length = width * CHANNELS;
  const int32_t half = 1 << (precision - 1);
  for (int64_t y = first; y < last; ++y) {
    for (int64_t i = 0; i < length; ++i) sums[i] = half;
    for (int32_t tap = 0; tap < sizes[y]; ++tap) {
      const uint8_t* line = source + (int64_t{starts[y]} + tap) * length;
      const int32_t w = weights[y * taps + tap];
      for (int64_t i = 0; i < length; ++i) sums[i] += w * line[i];
    }
    uint8_t* out = target + y * length;
    for (int64_t i = 0; i < length; ++i) out[i] = to_byte(sums[i], precision);
  }
}
