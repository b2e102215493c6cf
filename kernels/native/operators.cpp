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

// The most that may be used, for tests of the lesser ones.
InstructionSet most_allowed = InstructionSet::AVX512;

InstructionSet chosen() {
  static const InstructionSet found = instruction_set();
  return found < most_allowed ? found : most_allowed;
}
const MatMul& matmul() {
  switch (chosen()) {
    case InstructionSet::AVX512: return avx512::MATMUL;
    case InstructionSet::AVXVNNI: return avxvnni::MATMUL;
    default: return avx2::MATMUL;
  }
}
const AttentionKernel& attention() {
  switch (chosen()) {
    case InstructionSet::AVX512: return avx512::ATTENTION;
    case InstructionSet::AVXVNNI: return avxvnni::ATTENTION;
    default: return avx2::ATTENTION;
  }
}

constexpr size_t MOST_DIMENSIONS = 8;

struct Tensor {
  void* data = nullptr;
  int64_t dims[MOST_DIMENSIONS] = {};
  size_t rank = 0;
  int type = ort::UNDEFINED;

  size_t count() const {
    size_t product = 1;
    for (size_t i = 0; i < rank; i++) product *= dims[i];
    return product;
  }
  template <typename Number>
  Number* as() const {
    return static_cast<Number*>(data);
  }
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
    int64_t heads = 0, kv_heads = 0;
    ort::Status* status = api.attribute(info, "num_heads", &heads);
    if (status == nullptr) status = api.attribute(info, "kv_num_heads", &kv_heads);
    if (status == nullptr) status = api.attribute(info, "scale", &work_.scale);
    if (status == nullptr) status = api.attribute(info, "epsilon", &work_.epsilon);
    const bool is_possible = kv_heads > 0 && heads >= kv_heads && heads % kv_heads == 0 &&
                             heads / kv_heads <= MOST_HEADS;
    if (status == nullptr && !is_possible)
      status = api.error(ort::INVALID_ARGUMENT, "Attention: num_heads or kv_num_heads is wrong");
    work_.heads = heads;
    work_.kv_heads = kv_heads;
    return status;
  }

  ort::Status* compute(ort::Context* context) const {
    Run run(*api_, context);
    const Tensor joined = run.input(0), query_norm = run.input(1), key_norm = run.input(2);
    const Tensor cosines = run.input(3), sines = run.input(4);
    const Tensor keys = run.input(5), values = run.input(6), sequences = run.input(7);
    if (run.status != nullptr) return run.status;
    Attention work = work_;
    work.size = keys.rank == 4 ? keys.dims[3] : 0;
    work.capacity = keys.rank == 4 ? keys.dims[2] : 0;
    work.half = keys.type == ort::FLOAT16;
    const size_t width = joined.rank > 0 ? joined.dims[joined.rank - 1] : 1;
    const size_t rows = joined.count() / (width > 0 ? width : 1);
    if (!fits(work, joined, keys, values) || query_norm.count() != work.size ||
        key_norm.count() != work.size || cosines.count() != rows * work.size / 2 ||
        sines.count() != cosines.count())
      run.refuse("Attention: the shapes or types of the inputs do not fit");
    else if (!covers(work, sequences, rows, keys.dims[0]))
      run.refuse("Attention: the sequences do not fit the rows or the cache");
    if (run.status != nullptr) return run.status;
    int64_t dims[MOST_DIMENSIONS];
    for (size_t i = 0; i < joined.rank; i++) dims[i] = joined.dims[i];
    dims[joined.rank - 1] = work.heads * work.size;
    work.out = run.output(dims, joined.rank);
    if (run.status != nullptr || rows == 0) return run.status;
    work.joined = joined.as<const float>();
    work.query_norm = query_norm.as<const float>();
    work.key_norm = key_norm.as<const float>();
    work.cosines = cosines.as<const float>();
    work.sines = sines.as<const float>();
    work.keys = keys.data;
    work.values = values.data;
    attend(run, work, sequences.as<const Sequence>(), sequences.dims[0], rows);
    return run.status;
  }

 private:
  static constexpr int64_t MOST_HEADS = 16;  // of a group: the lanes of two AVX2 registers
  static constexpr int64_t MOST_SIZE = 256;  // of a head
  // Rows that are prepared faster by one thread than by asking others.
  static constexpr size_t PREPARED_ALONE = 4;

  static bool fits(const Attention& work, const Tensor& joined, const Tensor& keys,
                   const Tensor& values) {
    if (joined.rank < 1 || keys.rank != 4 || values.rank != 4 || keys.type != values.type ||
        (keys.type != ort::FLOAT && keys.type != ort::FLOAT16))
      return false;
    for (size_t i = 0; i < 4; i++)
      if (keys.dims[i] != values.dims[i]) return false;
    const int64_t size = work.size, width = (work.heads + 2 * work.kv_heads) * size;
    return keys.dims[1] == int64_t(work.kv_heads) && size > 0 && size % 16 == 0 &&
           size <= MOST_SIZE && joined.dims[joined.rank - 1] == width;
  }

  static bool covers(const Attention& work, const Tensor& sequences, size_t rows, int64_t slots) {
    if (sequences.rank != 2 || sequences.dims[1] != 3) return false;
    const Sequence* list = sequences.as<const Sequence>();
    int64_t covered = 0;
    for (int64_t i = 0; i < sequences.dims[0]; i++) {
      const Sequence& one = list[i];
      if (one.slot < 0 || one.slot >= slots || one.tokens < 1 || one.past < 0 ||
          int64_t(one.past) + one.tokens > int64_t(work.capacity))
        return false;
      covered += one.tokens;
    }
    return covered == int64_t(rows);
  }

  static void attend(Run& run, Attention work, const Sequence* sequences, size_t count,
                     size_t rows) {
    const AttentionKernel& kernel = attention();
    const size_t block = kernel.block_tokens(work);
    size_t part_count = 0;
    for (size_t i = 0; i < count; i++)
      part_count += work.kv_heads * divided(sequences[i].tokens, block);
    const size_t query_floats = rows * work.heads * work.size;
    Scratch tables(query_floats * 4 + part_count * sizeof(Part) + rows * sizeof(Place));
    if (tables.data() == nullptr) return run.refuse("Attention: out of memory");
    work.queries = reinterpret_cast<float*>(tables.data());
    Part* parts = reinterpret_cast<Part*>(work.queries + query_floats);
    Place* places = reinterpret_cast<Place*>(parts + part_count);
    describe(work, sequences, count, block, parts, places);
    auto prepare = [&](size_t row) {
      kernel.prepare(work, sequences[places[row].sequence], places[row].token, row);
    };
    if (rows <= PREPARED_ALONE)
      for (size_t row = 0; row < rows; row++) prepare(row);
    else
      run.parallel(rows, prepare);
    auto compute = [&](size_t index) { kernel.compute(work, parts[index]); };
    run.parallel(part_count, compute);
  }

  struct Place {
    int32_t sequence, token;
  };

  // Lists the parts, the longest first so that threads end together, and the rows' places.
  static void describe(const Attention& work, const Sequence* sequences, size_t count,
                       size_t block, Part* part, Place* place) {
    for (const bool is_token : {false, true}) {
      int32_t first = 0;
      for (size_t i = 0; i < count; i++) {
        const Sequence& one = sequences[i];
        if ((one.tokens == 1) == is_token)
          for (size_t b = divided(one.tokens, block); b-- > 0;)
            for (size_t head = 0; head < work.kv_heads; head++)
              *part++ = Part{one, first, int32_t(head), int32_t(b)};
        if (!is_token)
          for (int32_t token = 0; token < one.tokens; token++) *place++ = {int32_t(i), token};
        first += one.tokens;
      }
    }
  }

  const ort::Api* api_ = nullptr;
  Attention work_ = {};
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
  return index < 5 ? ort::FLOAT : index < 7 ? ort::UNDEFINED : ort::INT32;
}

const ort::Operator MATMUL_INT4 = described<MatMulKernel>(
    [](const ort::Operator*) { return "MatMulInt4"; }, matmul_input,
    [](const ort::Operator*) -> size_t { return 3; });
const ort::Operator ATTENTION = described<AttentionOperator>(
    [](const ort::Operator*) { return "Attention"; }, attention_input,
    [](const ort::Operator*) -> size_t { return 8; });

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
  switch (chosen()) {
    case InstructionSet::AVX512: return "avx512";
    case InstructionSet::AVXVNNI: return "avxvnni";
    case InstructionSet::AVX2: return "avx2";
    default: return "";
  }
}

// Lets tests run the kernels of lesser processors: 1 is AVX2, 2 AVX-VNNI, 3 all there is.
EXPORTED void tandem_allow(int most) { most_allowed = static_cast<InstructionSet>(most); }
