// What every operator needs of ONNX Runtime: its tensors, its threads, and a description of itself.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <initializer_list>
#include <new>

#include "onnxruntime.h"

constexpr size_t MOST_DIMENSIONS = 8;

// How many times `by` covers `total`.
inline size_t divided(size_t total, size_t by) { return (total + by - 1) / by; }

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
  bool has_shape(std::initializer_list<size_t> wanted) const {
    if (rank != wanted.size()) return false;
    for (size_t i = 0; i < rank; i++)
      if (dims[i] != int64_t(wanted.begin()[i])) return false;
    return true;
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

  // Calls work(i) for every i < total on the session's threads.
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

// Describes an operator to ONNX Runtime. `Op` has
//   static constexpr const char* NAME;
//   static constexpr size_t INPUT_COUNT;
//   static ort::ElementType input_type(size_t index);  // UNDEFINED: any
//   ort::Status* read(const ort::Api&, const ort::KernelInfo*);  // the node's attributes
//   ort::Status* compute(ort::Context*) const;
// and one output, in float32.
template <typename Op>
constexpr ort::Operator described() {
  ort::Operator op = {};
  op.version = ort::API_VERSION;
  op.name = [](const ort::Operator*) -> const char* { return Op::NAME; };
  op.execution_provider = [](const ort::Operator*) -> const char* { return nullptr; };
  op.input_type = [](const ort::Operator*, size_t index) { return Op::input_type(index); };
  op.input_count = [](const ort::Operator*) -> size_t { return Op::INPUT_COUNT; };
  op.output_type = [](const ort::Operator*, size_t) { return ort::FLOAT; };
  op.output_count = [](const ort::Operator*) -> size_t { return 1; };
  op.input_characteristic = [](const ort::Operator*, size_t) { return ort::REQUIRED; };
  op.output_characteristic = [](const ort::Operator*, size_t) { return ort::REQUIRED; };
  op.input_memory_type = [](const ort::Operator*, size_t) { return ort::DEFAULT_MEMORY; };
  op.start_version = [](const ort::Operator*) { return 1; };
  op.end_version = [](const ort::Operator*) { return INT32_MAX; };
  op.create_kernel_v2 = [](const ort::Operator*, const ort::Api* api, const ort::KernelInfo* info,
                           void** made) -> ort::Status* {
    void* memory = malloc(sizeof(Op));
    if (memory == nullptr) return api->error(ort::FAIL, "out of memory");
    auto* kernel = new (memory) Op();
    ort::Status* status = kernel->read(*api, info);
    if (status != nullptr)
      free(memory);
    else
      *made = kernel;
    return status;
  };
  op.compute_v2 = [](void* kernel, ort::Context* context) {
    return static_cast<const Op*>(kernel)->compute(context);
  };
  op.destroy = [](void* kernel) { free(kernel); };
  return op;
}
