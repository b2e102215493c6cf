// `tandem.MatMulFloat`: activation(norm(x) @ weight + bias) + residual, in float32.
//
// Inputs: x float32 [rows, K], the weight's values and biases as float_layout.py packs them;
// residual float32 [rows, N], and norm float32 [2, K], a layer norm's weights and biases. The last
// two are absent where they have no numbers. With the attribute `fast`, which may be absent,
// numbers are rounded to bfloat16 where the processor multiplies these in tiles.
#include "matmul_float.h"
#include "members.h"
#include "operator.h"
#include "operators.h"
#include "processor.h"
#include "product.h"
#include "scratch.h"

namespace {

const FloatKernel& kernel_in_use(bool is_fast) {
  if (is_fast && instruction_set() == InstructionSet::AMX) return amx::MATMUL_COARSE;
  return in_use(amx::MATMUL_FLOAT, avx512::MATMUL_FLOAT, avxvnni::MATMUL_FLOAT,
                avx2::MATMUL_FLOAT);
}

class MatMulFloatOp {
 public:
  static constexpr const char* NAME = "MatMulFloat";
  static constexpr size_t INPUT_COUNT = 5;
  static ort::ElementType input_type(size_t) { return ort::FLOAT; }

  ort::Status* read(const ort::Api& api, const ort::KernelInfo* info) {
    api_ = &api;
    is_fast_ = api.attribute_or(info, "fast", 0) != 0;
    return read_product(api, info, LIMITS, weight_);
  }

  ort::Status* compute(ort::Context* context) const {
    Run run(*api_, context);
    const Tensor x = run.input(0), values = run.input(1), biases = run.input(2);
    const Tensor residual = run.input(3), norm = run.input(4);
    if (run.status != nullptr) return run.status;
    FloatWeight weight = weight_;
    const size_t rows = x.rank == 2 ? x.dims[0] : 0;
    if (!x.has_shape({rows, weight.inputs}) ||
        !values.has_shape({weight.tiles, weight.padded, FLOAT_LANES}) ||
        !biases.has_shape({weight.tiles, FLOAT_LANES}) ||
        (residual.count() != 0 && !residual.has_shape({rows, weight.outputs})) ||
        (norm.count() != 0 && !norm.has_shape({2, weight.inputs})))
      run.refuse("MatMulFloat: the shapes of the inputs do not fit the attributes");
    const int64_t dims[] = {int64_t(rows), int64_t(weight.outputs)};
    float* out = run.output(dims, 2);
    if (run.status != nullptr || rows == 0) return run.status;
    weight.values = values.as<const float>();
    weight.biases = biases.as<const float>();
    weight.norm = norm.count() == 0 ? nullptr : norm.as<const float>();
    const float* added = residual.count() == 0 ? nullptr : residual.as<const float>();
    for (const Rows& live : LiveRows(rows)) {
      const size_t at = live.first * weight.outputs;
      multiply(run, kernel_in_use(is_fast_), weight, x.as<const float>() + live.first * weight.inputs,
               live.count, added == nullptr ? nullptr : added + at, out + at);
    }
    return run.status;
  }

 private:
  static constexpr ProductLimits LIMITS = {FLOAT_INPUTS, FLOAT_STEP, FLOAT_LANES,
                                           "MatMulFloat: K, N or activation is out of range"};
  // Packed rows at a time: the working memory does not grow with the image.
  static constexpr size_t PANEL_BYTES = 32 * 1024 * 1024;

  static void multiply(Run& run, const FloatKernel& kernel, const FloatWeight& weight,
                       const float* x, size_t rows, const float* residual, float* out) {
    const size_t tile_bytes = kernel.row_tile * weight.padded * kernel.number_size;
    const size_t group_bytes = kernel.group / kernel.row_tile * tile_bytes;
    const size_t groups = PANEL_BYTES / group_bytes < 1 ? 1 : PANEL_BYTES / group_bytes;
    const size_t most = groups * kernel.group;
    Scratch scratch(divided(rows < most ? rows : most, kernel.row_tile) * tile_bytes);
    if (scratch.data() == nullptr) return run.refuse("MatMulFloat: out of memory");
    auto* panel = reinterpret_cast<uint8_t*>(scratch.data());
    for (size_t first = 0; first < rows; first += most) {
      const size_t at = first * weight.outputs, count = rows - first < most ? rows - first : most;
      multiply_panel(run, kernel, weight, x + first * weight.inputs, count,
                     residual == nullptr ? nullptr : residual + at, out + at, panel);
    }
  }

  static void multiply_panel(Run& run, const FloatKernel& kernel, const FloatWeight& weight,
                             const float* x, size_t rows, const float* residual, float* out,
                             uint8_t* panel) {
    const size_t row_bytes = weight.padded * kernel.number_size;
    const auto left = [&](size_t first, size_t most) {
      return rows - first < most ? rows - first : most;
    };
    auto pack = [&](size_t tile) {
      const size_t first = tile * kernel.row_tile;
      kernel.pack(weight, x + first * weight.inputs, left(first, kernel.row_tile),
                  panel + first * row_bytes);
    };
    run.parallel(divided(rows, kernel.row_tile), pack);
    const size_t parts = divided(weight.tiles, FLOAT_TILES);
    auto product = [&](size_t index) {
      const size_t first = index / parts * kernel.group, part = index % parts;
      const size_t at = first * weight.outputs;
      kernel.multiply(weight, {panel + first * row_bytes, left(first, kernel.group),
                               part * weight.tiles / parts, (part + 1) * weight.tiles / parts,
                               residual == nullptr ? nullptr : residual + at, out + at});
    };
    run.parallel(divided(rows, kernel.group) * parts, product);
  }

  const ort::Api* api_ = nullptr;
  FloatWeight weight_ = {};
  bool is_fast_ = false;
};

}  // namespace

const ort::Operator MATMUL_FLOAT = described<MatMulFloatOp>();
