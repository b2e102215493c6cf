// `tandem.MlpInt8`: fc2(activation(fc1(norm(x)))) + x, of a block of the tower, the products in
// int8. Inputs: x float32 [rows, K], what MatMulInt8 has of fc1 [K, N], the same of fc2 [N, K], and
// norm float32 [2, K]. With matrix tiles the N hidden numbers of a row do not leave a core's caches
// (mlp_int8_tiles.cpp); without them it is two MatMulInt8.
#include "mlp_int8.h"

#include "int8_op.h"
#include "members.h"
#include "operators.h"
#include "processor.h"
#include "scratch.h"

namespace {

class MlpInt8Op {
 public:
  static constexpr const char* NAME = "MlpInt8";
  static constexpr size_t INPUT_COUNT = 10;
  static ort::ElementType input_type(size_t index) {
    if (index == 0 || index == NORM) return ort::FLOAT;
    return int8_input_type((index - 1) % INT8_PARTS);
  }

  ort::Status* read(const ort::Api& api, const ort::KernelInfo* info) {
    api_ = &api;
    Int8Weight &first = mlp_.first, &second = mlp_.second;
    ort::Status* status = read_product(api, info, int8_limits(REFUSAL), first);
    if (status != nullptr) return status;
    if (first.outputs > INT8_INPUTS || first.activation == Activation::NONE)
      return api.error(ort::INVALID_ARGUMENT, REFUSAL);
    second.inputs = first.outputs;
    second.outputs = first.inputs;
    second.padded = divided(second.inputs, INT8_STEP) * INT8_STEP;
    second.tiles = divided(second.outputs, INT8_LANES);
    return nullptr;
  }

  ort::Status* compute(ort::Context* context) const {
    Run run(*api_, context);
    Int8Mlp mlp = mlp_;
    const Tensor x = run.input(0), norm = run.input(NORM);
    read_int8(run, 1, MISFIT, mlp.first);
    read_int8(run, 1 + INT8_PARTS, MISFIT, mlp.second);
    if (run.status != nullptr) return run.status;
    const size_t rows = x.rank == 2 ? x.dims[0] : 0, width = mlp.first.inputs;
    if (!x.has_shape({rows, width}) || !norm.has_shape({2, width}))
      run.refuse(MISFIT);
    const int64_t dims[] = {int64_t(rows), int64_t(width)};
    float* out = run.output(dims, 2);
    if (run.status != nullptr || rows == 0) return run.status;
    mlp.first.norm = norm.as<const float>();
    const bool has_tiles = instruction_set() == InstructionSet::AMX;
    for (const Rows& live : LiveRows(rows)) {
      const size_t at = live.first * width;
      (has_tiles ? in_tiles : in_turn)(run, mlp, x.as<const float>() + at, live.count, out + at);
    }
    return run.status;
  }

 private:
  static constexpr size_t NORM = 1 + 2 * INT8_PARTS;
  static constexpr const char* REFUSAL = "MlpInt8: K, N or activation is out of range";
  static constexpr const char* MISFIT =
      "MlpInt8: the shapes of the inputs do not fit the attributes";
  // Parts for threads to take, while they have enough rows.
  static constexpr size_t PARTS = 8;
  // Rows of a part, while there are enough for several: each part reads all weights.
  static constexpr size_t FEW_ROWS = 128;
  // Working memories, at most; what no thread takes costs nothing.
  static constexpr size_t MOST_PLACES = 64;
  // Rows whose hidden numbers are in memory together, without tiles.
  static constexpr size_t ROWS_IN_TURN = 1024;

  static size_t parts_of(size_t tiles, size_t row_tile) {
    const size_t few = divided(FEW_ROWS, row_tile), many = INT8_MLP_ROWS / row_tile;
    const size_t shared = divided(tiles, PARTS), wanted = shared < few ? few : shared;
    const size_t parts = divided(tiles, wanted < many ? wanted : many);
    return parts == 1 && tiles > 1 ? 2 : parts;
  }

  static void in_tiles(Run& run, const Int8Mlp& mlp, const float* x, size_t rows, float* out) {
    const size_t row_tile = amx::MATMUL_INT8.row_tile, width = mlp.first.inputs;
    const size_t tiles = divided(rows, row_tile), parts = parts_of(tiles, row_tile);
    const size_t places = parts < MOST_PLACES ? parts : MOST_PLACES;
    const size_t bytes = amx::MLP_INT8.working_bytes(mlp, divided(tiles, parts) * row_tile);
    Scratch scratch(places * bytes);
    if (scratch.data() == nullptr) return run.refuse("MlpInt8: out of memory");
    uint64_t taken = places < MOST_PLACES ? ~uint64_t(0) << places : 0;
    auto work = [&](size_t part) {
      const size_t begin = part * tiles / parts * row_tile;
      const size_t end = (part + 1) * tiles / parts * row_tile;
      const size_t place = take(taken);
      amx::MLP_INT8.compute(mlp, x + begin * width, (end < rows ? end : rows) - begin,
                            reinterpret_cast<uint8_t*>(scratch.data()) + place * bytes,
                            out + begin * width);
      __atomic_fetch_and(&taken, ~(uint64_t(1) << place), __ATOMIC_RELEASE);
    };
    run.parallel(parts, work);
  }

  // Takes the first place that nobody has: there are as many as threads, or 64.
  static size_t take(uint64_t& taken) {
    for (uint64_t found = __atomic_load_n(&taken, __ATOMIC_RELAXED);;) {
      if (found == ~uint64_t(0)) {
        found = __atomic_load_n(&taken, __ATOMIC_RELAXED);
        continue;
      }
      const uint64_t free = ~found & (found + 1);
      if (__atomic_compare_exchange_n(&taken, &found, found | free, true, __ATOMIC_ACQUIRE,
                                      __ATOMIC_RELAXED))
        return __builtin_ctzll(free);
    }
  }

  static void in_turn(Run& run, const Int8Mlp& mlp, const float* x, size_t rows, float* out) {
    const size_t most = rows < ROWS_IN_TURN ? rows : ROWS_IN_TURN, width = mlp.first.inputs;
    auto* hidden = static_cast<float*>(malloc(most * mlp.first.outputs * sizeof(float)));
    if (hidden == nullptr) return run.refuse("MlpInt8: out of memory");
    for (size_t first = 0; first < rows; first += most) {
      const size_t count = rows - first < most ? rows - first : most, at = first * width;
      multiply_int8(run, mlp.first, x + at, count, nullptr, hidden);
      multiply_int8(run, mlp.second, hidden, count, x + at, out + at);
    }
    free(hidden);
  }

  const ort::Api* api_ = nullptr;
  Int8Mlp mlp_ = {};
};

}  // namespace

const ort::Operator MLP_INT8 = described<MlpInt8Op>();
