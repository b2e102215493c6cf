// `tandem.MatMulInt8`: activation(norm(x) @ weight + bias) + residual, the product in int8.
//
// Inputs: x float32 [rows, K], and as int8_layout.py packs them the weight's values, scales, sums
// and biases; residual float32 [rows, N], and norm float32 [2, K], a layer norm's weights and
// biases. The last two are absent where they have no numbers.
#include "int8_op.h"
#include "members.h"
#include "operators.h"
#include "processor.h"
#include "scratch.h"

namespace {

const Int8Kernel& kernel_in_use() {
  return in_use(amx::MATMUL_INT8, avx512::MATMUL_INT8, avxvnni::MATMUL_INT8, avx2::MATMUL_INT8);
}

// Rows of a part: their bytes stay in a core's second cache while the weights pass.
constexpr size_t BLOCK_BYTES = 512 * 1024;
// Parts of a block of rows, for threads to take: enough that one does not wait long for another.
constexpr size_t PARTS = 8;

}  // namespace

void multiply_int8(Run& run, const Int8Weight& weight, const float* x, size_t rows,
                   const float* residual, float* out) {
  const Int8Kernel& kernel = kernel_in_use();
  const size_t tile_rows = kernel.row_tile, tiles = divided(rows, tile_rows);
  const size_t bytes = tiles * tile_rows * weight.padded;
  Scratch scratch(bytes + tiles * tile_rows * sizeof(Int8Range));
  if (scratch.data() == nullptr) return run.refuse("INT8 product: out of memory");
  const auto tile_at = [&](size_t tile) {
    auto* ranges = reinterpret_cast<Int8Range*>(scratch.data() + bytes);
    auto* from = reinterpret_cast<uint8_t*>(scratch.data());
    return Int8Rows{from + tile * tile_rows * weight.padded, ranges + tile * tile_rows};
  };
  const auto rows_of = [&](size_t tile) {
    const size_t left = rows - tile * tile_rows;
    return left < tile_rows ? left : tile_rows;
  };
  auto quantize = [&](size_t tile) {
    kernel.quantize(weight, x + tile * tile_rows * weight.inputs, rows_of(tile), tile_at(tile));
  };
  run.parallel(tiles, quantize);
  const size_t fitting = BLOCK_BYTES / (tile_rows * weight.padded);
  const size_t least = divided(kernel.least_rows, tile_rows);
  const size_t block = fitting < least ? least : fitting, blocks = divided(tiles, block);
  const size_t parts = weight.tiles < PARTS ? weight.tiles : PARTS;
  auto product = [&](size_t index) {
    const size_t first = index / parts * block, part = index % parts, row = first * tile_rows;
    const size_t left = rows - row, most = block * tile_rows, count = left < most ? left : most;
    const float* added = residual == nullptr ? nullptr : residual + row * weight.outputs;
    kernel.multiply(weight, tile_at(first), count, part * weight.tiles / parts,
                    (part + 1) * weight.tiles / parts, added, out + row * weight.outputs);
  };
  run.parallel(blocks * parts, product);
}

void read_int8(Run& run, size_t index, const char* refusal, Int8Weight& weight) {
  const Tensor values = run.input(index), scales = run.input(index + 1);
  const Tensor sums = run.input(index + 2), biases = run.input(index + 3);
  if (run.status != nullptr) return;
  const size_t tiles = weight.tiles;
  if (!values.has_shape({tiles, weight.padded / 4, INT8_LANES * 4}) ||
      !scales.has_shape({tiles, INT8_LANES}) || !sums.has_shape({tiles, INT8_LANES}) ||
      !biases.has_shape({tiles, INT8_LANES}))
    run.refuse(refusal);
  weight.values = values.as<const int8_t>();
  weight.scales = scales.as<const float>();
  weight.sums = sums.as<const int32_t>();
  weight.biases = biases.as<const float>();
}

namespace {

class MatMulInt8Op {
 public:
  static constexpr const char* NAME = "MatMulInt8";
  static constexpr size_t INPUT_COUNT = 7;
  static ort::ElementType input_type(size_t index) {
    return index == 0 || index >= RESIDUAL ? ort::FLOAT : int8_input_type(index - 1);
  }

  ort::Status* read(const ort::Api& api, const ort::KernelInfo* info) {
    api_ = &api;
    return read_product(api, info, int8_limits(REFUSAL), weight_);
  }

  ort::Status* compute(ort::Context* context) const {
    Run run(*api_, context);
    Int8Weight weight = weight_;
    read_int8(run, 1, MISFIT, weight);
    const Tensor x = run.input(0), residual = run.input(RESIDUAL), norm = run.input(NORM);
    if (run.status != nullptr) return run.status;
    const size_t rows = x.rank == 2 ? x.dims[0] : 0;
    if (!x.has_shape({rows, weight.inputs}) ||
        (residual.count() != 0 && !residual.has_shape({rows, weight.outputs})) ||
        (norm.count() != 0 && !norm.has_shape({2, weight.inputs})))
      run.refuse(MISFIT);
    const int64_t dims[] = {int64_t(rows), int64_t(weight.outputs)};
    float* out = run.output(dims, 2);
    if (run.status != nullptr || rows == 0) return run.status;
    weight.norm = norm.count() == 0 ? nullptr : norm.as<const float>();
    const float* added = residual.count() == 0 ? nullptr : residual.as<const float>();
    for (const Rows& live : LiveRows(rows)) {
      const size_t at = live.first * weight.outputs;
      multiply_int8(run, weight, x.as<const float>() + live.first * weight.inputs, live.count,
                    added == nullptr ? nullptr : added + at, out + at);
    }
    return run.status;
  }

 private:
  enum Input : size_t { RESIDUAL = 1 + INT8_PARTS, NORM };
  static constexpr const char* REFUSAL = "MatMulInt8: K, N or activation is out of range";
  static constexpr const char* MISFIT =
      "MatMulInt8: the shapes of the inputs do not fit the attributes";

  const ort::Api* api_ = nullptr;
  Int8Weight weight_ = {};
};

}  // namespace

const ort::Operator MATMUL_INT8 = described<MatMulInt8Op>();
