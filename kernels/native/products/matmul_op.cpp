// tandem.MatMulInt4: checks shapes, then quantizes activations and multiplies, both in parts that
// threads take. The arithmetic is matmul.cpp's.
#include "matmul.h"
#include "operator.h"
#include "operators.h"
#include "processor.h"
#include "scratch.h"

namespace {

class MatMulOp {
 public:
  static constexpr const char* NAME = "MatMulInt4";
  static constexpr size_t INPUT_COUNT = 3;
  static ort::ElementType input_type(size_t index) { return index == 1 ? ort::UINT8 : ort::FLOAT; }

  ort::Status* read(const ort::Api& api, const ort::KernelInfo* info) {
    api_ = &api;
    int64_t inputs = 0, outputs = 0, block_size = 0, gated = 0;
    ort::Status* status = api.attribute(info, "K", &inputs);
    if (status == nullptr) status = api.attribute(info, "N", &outputs);
    if (status == nullptr) status = api.attribute(info, "block_size", &block_size);
    if (status == nullptr) status = api.attribute(info, "gated", &gated);
    if (status != nullptr) return status;
    if (inputs < 1 || outputs < 1 || block_size < BLOCK_SIZE_STEP ||
        block_size > MOST_BLOCK_SIZE || block_size % BLOCK_SIZE_STEP != 0)
      return api.error(ort::INVALID_ARGUMENT, "MatMulInt4: K, N or block_size is out of range");
    weight_.inputs = inputs;
    weight_.outputs = outputs;
    weight_.block_size = block_size;
    weight_.blocks = divided(inputs, block_size);
    weight_.tiles = divided(outputs, gated ? TILE_OUTPUTS / 2 : TILE_OUTPUTS);
    weight_.gated = gated != 0;
    return nullptr;
  }

  ort::Status* compute(ort::Context* context) const {
    Run run(*api_, context);
    const Tensor x = run.input(0), values = run.input(1), scales = run.input(2);
    if (run.status != nullptr) return run.status;
    if (x.rank < 1 || x.dims[x.rank - 1] != int64_t(weight_.inputs))
      run.refuse("MatMulInt4: the activation's last dimension is not K");
    if (!values.has_shape(
            {weight_.tiles, weight_.blocks, weight_.block_size / 8, 4 * TILE_OUTPUTS}) ||
        !scales.has_shape({weight_.tiles, weight_.blocks, TILE_OUTPUTS}))
      run.refuse("MatMulInt4: the weight's shape does not match its attributes");
    size_t rows = 1;
    int64_t dims[MOST_DIMENSIONS];
    for (size_t i = 0; i + 1 < x.rank; i++) rows *= dims[i] = x.dims[i];
    if (x.rank > 0) dims[x.rank - 1] = weight_.outputs;
    float* out = run.output(dims, x.rank);
    if (run.status != nullptr || rows == 0) return run.status;
    Weight weight = weight_;
    weight.values = values.as<const uint8_t>();
    weight.scales = scales.as<const float>();
    multiply(run, weight, x.as<const float>(), rows, out);
    return run.status;
  }

 private:
  // Parts of a product, for threads to take: enough that one does not wait long for another.
  static constexpr size_t PARTS = 16;
  // Below that many values one thread quantizes faster than two begin to.
  static constexpr size_t QUANTIZED_ALONE = 4096;

  static void multiply(Run& run, const Weight& weight, const float* x, size_t rows, float* out) {
    const MatMulKernel& kernel = in_use(avx512::MATMUL, avxvnni::MATMUL, avx2::MATMUL);
    const size_t tiles = divided(rows, kernel.row_tile);
    const size_t padded = weight.blocks * weight.block_size;
    const size_t quad_bytes = rows * padded, sum_bytes = rows * weight.blocks * 4;
    Scratch scratch(quad_bytes + 2 * sum_bytes);
    if (scratch.data() == nullptr) return run.refuse("MatMulInt4: out of memory");
    const auto first_row = [&](size_t tile) { return tile * rows / tiles; };
    const auto activations = [&](size_t tile) {
      const size_t row = first_row(tile);
      char* sums = scratch.data() + quad_bytes;
      return Activations{reinterpret_cast<int32_t*>(scratch.data() + row * padded),
                         reinterpret_cast<int32_t*>(sums) + row * weight.blocks,
                         reinterpret_cast<float*>(sums + sum_bytes) + row * weight.blocks};
    };
    const size_t halves = rows * padded < QUANTIZED_ALONE || weight.blocks < 2 ? 1 : 2;
    auto quantize = [&](size_t part) {
      const size_t tile = part / halves, half = part % halves, row = first_row(tile);
      kernel.quantize(weight, x + row * weight.inputs, first_row(tile + 1) - row,
                      half * weight.blocks / halves, (half + 1) * weight.blocks / halves,
                      activations(tile));
    };
    run.parallel(tiles * halves, quantize);
    const size_t parts = weight.tiles < PARTS ? weight.tiles : PARTS;
    auto product = [&](size_t part) {
      // A weight tile stays in the cache while every row tile passes.
      for (size_t at = part * weight.tiles / parts; at < (part + 1) * weight.tiles / parts; at++)
        for (size_t tile = 0; tile < tiles; tile++) {
          const size_t row = first_row(tile);
          kernel.multiply(weight, activations(tile), first_row(tile + 1) - row, at, at + 1,
                          out + row * weight.outputs);
        }
    };
    run.parallel(parts, product);
  }

  const ort::Api* api_ = nullptr;
  Weight weight_ = {};
};

}  // namespace

const ort::Operator MATMUL_INT4 = described<MatMulOp>();
