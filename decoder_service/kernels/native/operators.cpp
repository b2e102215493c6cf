// The operators as ONNX Runtime sees them, and the choice of an instruction set.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <initializer_list>
#include <new>

#include "attention.h"
#include "matmul.h"
#include "onnxruntime.h"
#include "processor.h"
#include "scratch.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

bool use_avx2 = false;  // although there is AVX-512, for tests

bool has_avx512() {
  static const bool found = instruction_set() == InstructionSet::AVX512;
  return found && !use_avx2;
}
const MatMul& matmul() { return has_avx512() ? avx512::MATMUL : avx2::MATMUL; }
const AttentionKernel& attention() { return has_avx512() ? avx512::ATTENTION : avx2::ATTENTION; }

constexpr size_t MOST_DIMENSIONS = 8;

struct Tensor {
  void* data = nullptr;
  int64_t dims[MOST_DIMENSIONS] = {};
  size_t rank = 0;
  int type = ort::UNDEFINED;
};

// What one call of a kernel has from ONNX Runtime; after a failure everything else is skipped.
class Run {
 public:
  Run(const ort::Api& api, ort::Context* context) : api_(api), context_(context) {}

  Tensor input(size_t index) {
    Tensor tensor;
    const ort::Value* value = nullptr;
    ort::Shape* shape = nullptr;
    if (!keep(api_.input(context_, index, &value)) || !keep(api_.data(value, &tensor.data)) ||
        !keep(api_.shape(value, &shape)))
      return tensor;
    keep(api_.rank(shape, &tensor.rank));
    if (tensor.rank > MOST_DIMENSIONS) {
      refuse("a tensor has more dimensions than expected");
      tensor.rank = 0;
    }
    if (status == nullptr) keep(api_.dimensions(shape, tensor.dims, tensor.rank));
    if (status == nullptr) keep(api_.element_type(shape, &tensor.type));
    api_.release(shape);
    return tensor;
  }

  float* output(const int64_t* dims, size_t rank) {
    ort::Value* value = nullptr;
    void* data = nullptr;
    if (status == nullptr && keep(api_.output(context_, 0, dims, rank, &value)))
      keep(api_.data(value, &data));
    return static_cast<float*>(data);
  }

  template <typename Work>
  void parallel(size_t total, Work& work) {
    if (status != nullptr) return;
    if (total == 1) return work(0);
    const auto call = [](void* data, size_t index) { (*static_cast<Work*>(data))(index); };
    keep(api_.parallel_for(context_, call, total, &work));
  }

  void refuse(const char* message) {
    if (status == nullptr) status = api_.error(ort::INVALID_ARGUMENT, message);
  }

  ort::Status* status = nullptr;

 private:
  bool keep(ort::Status* made) {
    if (made != nullptr) status = made;
    return made == nullptr;
  }
  const ort::Api& api_;
  ort::Context* context_;
};

size_t divided(size_t total, size_t by) { return (total + by - 1) / by; }

// ---------------------------------------------------------------------------------------------
// MatMulInt4

class MatMulKernel {
 public:
  ort::Status* read(const ort::Api& api, const ort::KernelInfo* info) {
    api_ = &api;
    int64_t inputs = 0, outputs = 0, block_size = 0, gated = 0;
    ort::Status* status = api.attribute(info, "K", &inputs);
    if (status == nullptr) status = api.attribute(info, "N", &outputs);
    if (status == nullptr) status = api.attribute(info, "block_size", &block_size);
    if (status == nullptr) status = api.attribute(info, "gated", &gated);
    if (status != nullptr) return status;
    if (inputs < 1 || outputs < 1 || block_size < 16 || block_size > 256 || block_size % 16 != 0)
      return api.error(ort::INVALID_ARGUMENT, "MatMulInt4: K, N or block_size is out of range");
    weight_.inputs = inputs;
    weight_.outputs = outputs;
    weight_.block_size = block_size;
    weight_.blocks = divided(inputs, block_size);
    weight_.tiles = divided(outputs, gated ? LANES / 2 : LANES);
    weight_.gated = gated != 0;
    return nullptr;
  }

  ort::Status* compute(ort::Context* context) const {
    Run run(*api_, context);
    const Tensor x = run.input(0), values = run.input(1), scales = run.input(2);
    if (run.status != nullptr) return run.status;
    if (x.rank < 1 || x.dims[x.rank - 1] != int64_t(weight_.inputs))
      run.refuse("MatMulInt4: the activation's last dimension is not K");
    if (!is(values, {int64_t(weight_.tiles), int64_t(weight_.blocks),
                     int64_t(weight_.block_size / 8), 4 * LANES}) ||
        !is(scales, {int64_t(weight_.tiles), int64_t(weight_.blocks), LANES, 0}))
      run.refuse("MatMulInt4: the weight's shape does not match its attributes");
    size_t rows = 1;
    int64_t dims[MOST_DIMENSIONS];
    for (size_t i = 0; i + 1 < x.rank; i++) rows *= dims[i] = x.dims[i];
    if (x.rank > 0) dims[x.rank - 1] = weight_.outputs;
    float* out = run.output(dims, x.rank);
    if (run.status != nullptr || rows == 0) return run.status;
    Weight weight = weight_;
    weight.values = static_cast<const uint8_t*>(values.data);
    weight.scales = static_cast<const float*>(scales.data);
    multiply(run, weight, static_cast<const float*>(x.data), rows, out);
    return run.status;
  }

 private:
  static constexpr size_t LANES = 32;
  // Parts of a product, for threads to take: enough that one does not wait long for another.
  static constexpr size_t PARTS = 16;
  // Below that many values one thread quantizes faster than two begin to.
  static constexpr size_t QUANTIZED_ALONE = 4096;

  static bool is(const Tensor& tensor, const int64_t (&dims)[4]) {
    const size_t rank = dims[3] == 0 ? 3 : 4;
    if (tensor.rank != rank) return false;
    for (size_t i = 0; i < rank; i++)
      if (tensor.dims[i] != dims[i]) return false;
    return true;
  }

  static void multiply(Run& run, const Weight& weight, const float* x, size_t rows, float* out) {
    const MatMul& kernel = matmul();
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

// ---------------------------------------------------------------------------------------------
// Attention

class AttentionOperator {
 public:
  ort::Status* read(const ort::Api& api, const ort::KernelInfo* info) {
    api_ = &api;
    ort::Status* status = api.attribute(info, "num_heads", &heads_);
    if (status == nullptr) status = api.attribute(info, "kv_num_heads", &kv_heads_);
    if (status == nullptr) status = api.attribute(info, "scale", &scale_);
    const bool is_possible = kv_heads_ > 0 && heads_ % kv_heads_ == 0 && heads_ >= kv_heads_ &&
                             heads_ / kv_heads_ <= MOST_HEADS;
    if (status == nullptr && !is_possible)
      status = api.error(ort::INVALID_ARGUMENT, "Attention: num_heads or kv_num_heads is wrong");
    return status;
  }

  ort::Status* compute(ort::Context* context) const {
    Run run(*api_, context);
    const Tensor query = run.input(0), key = run.input(1), value = run.input(2);
    const Tensor keys = run.input(3), values = run.input(4), lengths = run.input(5);
    if (run.status != nullptr) return run.status;
    if (query.rank != 3 || key.rank != 3 || value.rank != 3 || keys.rank != 4 ||
        values.rank != 4 || keys.type != values.type ||
        (keys.type != ort::FLOAT && keys.type != ort::FLOAT16)) {
      run.refuse("Attention: an input has the wrong rank or type");
      return run.status;
    }
    Attention work = described(query, keys);
    if (!fits(work, key, value, keys, values, lengths))
      run.refuse("Attention: shapes or lengths do not fit");
    work.out = run.output(query.dims, 3);
    if (run.status != nullptr) return run.status;
    work.key = static_cast<const float*>(key.data);
    work.value = static_cast<const float*>(value.data);
    work.values = values.data;
    work.lengths = static_cast<const int32_t*>(lengths.data);
    attend(run, work);
    return run.status;
  }

 private:
  Attention described(const Tensor& query, const Tensor& keys) const {
    Attention work = {};
    work.query = static_cast<const float*>(query.data);
    work.keys = keys.data;
    work.sequences = query.dims[0];
    work.tokens = query.dims[1];
    work.heads = heads_;
    work.kv_heads = kv_heads_;
    work.size = keys.dims[3];
    work.capacity = keys.dims[2];
    work.scale = scale_;
    work.half = keys.type == ort::FLOAT16;
    return work;
  }

  static bool fits(const Attention& work, const Tensor& key, const Tensor& value,
                   const Tensor& keys, const Tensor& values, const Tensor& lengths) {
    const int64_t sequences = work.sequences, tokens = work.tokens;
    const int64_t width = work.kv_heads * work.size;
    for (const Tensor* tensor : {&key, &value})
      if (tensor->dims[0] != sequences || tensor->dims[1] != tokens || tensor->dims[2] != width)
        return false;
    for (size_t i = 0; i < 4; i++)
      if (keys.dims[i] != values.dims[i]) return false;
    if (keys.dims[0] != sequences || keys.dims[1] != int64_t(work.kv_heads) ||
        work.size % 16 != 0 || lengths.rank != 1 || lengths.dims[0] != sequences)
      return false;
    if (sequences > 1 && tokens > 1) return false;
    for (int64_t s = 0; s < sequences; s++) {
      const int64_t length = static_cast<const int32_t*>(lengths.data)[s] + int64_t(1);
      if (length < tokens || length > int64_t(work.capacity)) return false;
    }
    return true;
  }

  static void attend(Run& run, const Attention& work) {
    const AttentionKernel& kernel = attention();
    auto append = [&](size_t part) {
      kernel.append(work, part / work.kv_heads, part % work.kv_heads);
    };
    // One token a sequence is little to copy: less than asking other threads for it.
    if (work.tokens == 1)
      for (size_t part = 0; part < work.sequences * work.kv_heads; part++) append(part);
    else
      run.parallel(work.sequences * work.kv_heads, append);
    const size_t parts = kernel.parts(work), floats = kernel.scratch_floats(work);
    Scratch scratch(parts * floats * sizeof(float));
    if (scratch.data() == nullptr) return run.refuse("Attention: out of memory");
    auto compute = [&](size_t part) {
      kernel.compute(work, part, reinterpret_cast<float*>(scratch.data()) + part * floats);
    };
    run.parallel(parts, compute);
  }

  static constexpr int64_t MOST_HEADS = 16;  // of a group: the lanes of two AVX2 registers

  const ort::Api* api_ = nullptr;
  int64_t heads_ = 0, kv_heads_ = 0;
  float scale_ = 1.0f;
};

// ---------------------------------------------------------------------------------------------
// Registration

template <typename Kernel>
ort::Operator described(const char* (*name)(const ort::Operator*),
                        ort::ElementType (*input_type)(const ort::Operator*, size_t),
                        size_t (*input_count)(const ort::Operator*)) {
  ort::Operator op = {};
  op.version = ort::API_VERSION;
  op.name = name;
  op.execution_provider = [](const ort::Operator*) -> const char* { return nullptr; };
  op.input_type = input_type;
  op.input_count = input_count;
  op.output_type = [](const ort::Operator*, size_t) { return ort::FLOAT; };
  op.output_count = [](const ort::Operator*) -> size_t { return 1; };
  op.input_characteristic = [](const ort::Operator*, size_t) { return ort::REQUIRED; };
  op.output_characteristic = [](const ort::Operator*, size_t) { return ort::REQUIRED; };
  op.input_memory_type = [](const ort::Operator*, size_t) { return 0; };
  op.start_version = [](const ort::Operator*) { return 1; };
  op.end_version = [](const ort::Operator*) { return 2147483647; };
  op.create_kernel_v2 = [](const ort::Operator*, const ort::Api* api, const ort::KernelInfo* info,
                           void** made) -> ort::Status* {
    void* memory = malloc(sizeof(Kernel));
    if (memory == nullptr) return api->error(ort::FAIL, "out of memory");
    auto* kernel = new (memory) Kernel();
    ort::Status* status = kernel->read(*api, info);
    if (status != nullptr)
      free(memory);
    else
      *made = kernel;
    return status;
  };
  op.compute_v2 = [](void* kernel, ort::Context* context) {
    return static_cast<const Kernel*>(kernel)->compute(context);
  };
  op.destroy = [](void* kernel) { free(kernel); };
  return op;
}

ort::ElementType matmul_input(const ort::Operator*, size_t index) {
  return index == 1 ? ort::UINT8 : ort::FLOAT;
}
ort::ElementType attention_input(const ort::Operator*, size_t index) {
  return index < 3 ? ort::FLOAT : index < 5 ? ort::UNDEFINED : ort::INT32;
}

const ort::Operator MATMUL_INT4 = described<MatMulKernel>(
    [](const ort::Operator*) { return "MatMulInt4"; }, matmul_input,
    [](const ort::Operator*) -> size_t { return 3; });
const ort::Operator ATTENTION = described<AttentionOperator>(
    [](const ort::Operator*) { return "Attention"; }, attention_input,
    [](const ort::Operator*) -> size_t { return 6; });

}  // namespace

// What ONNX Runtime calls when a session registers the library.
EXPORTED ort::Status* RegisterCustomOps(ort::SessionOptions* options, const ort::ApiBase* base) {
  const ort::Api* api = base->get_api(ort::API_VERSION);
  if (api == nullptr) return nullptr;  // older than any this project installs
  // Each session gets a domain of its own, which nothing frees: some 100 bytes.
  ort::Domain* domain = nullptr;
  ort::Status* status = api->create_domain("tandem", &domain);
  for (const ort::Operator* op : {&MATMUL_INT4, &ATTENTION})
    if (status == nullptr) status = api->add_operator(domain, op);
  return status != nullptr ? status : api->add_domain(options, domain);
}

// The instruction set in use, or an empty text where the operators cannot run.
EXPORTED const char* tandem_instruction_set() {
  if (instruction_set() == InstructionSet::NONE) return "";
  return has_avx512() ? "avx512" : "avx2";
}

// Lets tests run the AVX2 kernels on a processor that has AVX-512.
EXPORTED void tandem_use_avx2(int wanted) { use_avx2 = wanted != 0; }
