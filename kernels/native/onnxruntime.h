// The part of ONNX Runtime's C interface that the operators use.
//
// Releases of ONNX Runtime only ever append to its table of functions and to the description of an
// operator, so the places below hold for every release since 1.18. Declaring them here keeps a
// header of 9000 lines, most of it unused, out of the tree; tests/unit/kernels/test_operators.py
// would crash or fail at once with a wrong one.
// Source: include/onnxruntime/core/session/onnxruntime_c_api.h of ONNX Runtime.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace ort {

constexpr uint32_t API_VERSION = 18;

struct Status;
struct Context;     // of one run of a kernel
struct KernelInfo;  // attributes of a node
struct SessionOptions;
struct Value;
struct Shape;
struct Domain;

enum ElementType : int { UNDEFINED = 0, FLOAT = 1, UINT8 = 2, INT32 = 6, FLOAT16 = 10 };
enum Characteristic : int { REQUIRED = 0 };
enum ErrorCode : int { FAIL = 1, INVALID_ARGUMENT = 2 };

struct Api {
  void* functions[275];

  template <typename Function>
  Function at(size_t index) const {
    return reinterpret_cast<Function>(functions[index]);
  }
  Status* error(ErrorCode code, const char* message) const {
    return at<Status* (*)(int, const char*)>(0)(code, message);
  }
  Status* create_domain(const char* name, Domain** domain) const {
    return at<Status* (*)(const char*, Domain**)>(26)(name, domain);
  }
  Status* add_operator(Domain* domain, const struct Operator* op) const {
    return at<Status* (*)(Domain*, const Operator*)>(27)(domain, op);
  }
  Status* add_domain(SessionOptions* options, Domain* domain) const {
    return at<Status* (*)(SessionOptions*, Domain*)>(28)(options, domain);
  }
  Status* data(const Value* value, void** pointer) const {
    return at<Status* (*)(const Value*, void**)>(51)(value, pointer);
  }
  Status* element_type(const Shape* shape, int* type) const {
    return at<Status* (*)(const Shape*, int*)>(60)(shape, type);
  }
  Status* rank(const Shape* shape, size_t* count) const {
    return at<Status* (*)(const Shape*, size_t*)>(61)(shape, count);
  }
  Status* dimensions(const Shape* shape, int64_t* values, size_t count) const {
    return at<Status* (*)(const Shape*, int64_t*, size_t)>(62)(shape, values, count);
  }
  Status* shape(const Value* value, Shape** shape) const {
    return at<Status* (*)(const Value*, Shape**)>(65)(value, shape);
  }
  Status* attribute(const KernelInfo* info, const char* name, float* value) const {
    return at<Status* (*)(const KernelInfo*, const char*, float*)>(85)(info, name, value);
  }
  Status* attribute(const KernelInfo* info, const char* name, int64_t* value) const {
    return at<Status* (*)(const KernelInfo*, const char*, int64_t*)>(86)(info, name, value);
  }
  Status* input(const Context* context, size_t index, const Value** value) const {
    return at<Status* (*)(const Context*, size_t, const Value**)>(90)(context, index, value);
  }
  Status* output(Context* context, size_t index, const int64_t* dims, size_t rank,
                 Value** value) const {
    return at<Status* (*)(Context*, size_t, const int64_t*, size_t, Value**)>(91)(
        context, index, dims, rank, value);
  }
  void release(Shape* shape) const { at<void (*)(Shape*)>(99)(shape); }
  // Calls function(data, i) for every i < total on the session's threads.
  Status* parallel_for(const Context* context, void (*function)(void*, size_t), size_t total,
                       void* data) const {
    using Entry = Status* (*)(const Context*, void (*)(void*, size_t), size_t, size_t, void*);
    return at<Entry>(274)(context, function, total, 0, data);
  }
};

struct ApiBase {
  const Api* (*get_api)(uint32_t version);
  const char* (*version)();
};

// Describes an operator; members that may be null are.
struct Operator {
  uint32_t version;
  void* (*create_kernel)(const Operator*, const Api*, const KernelInfo*);
  const char* (*name)(const Operator*);
  const char* (*execution_provider)(const Operator*);
  ElementType (*input_type)(const Operator*, size_t);
  size_t (*input_count)(const Operator*);
  ElementType (*output_type)(const Operator*, size_t);
  size_t (*output_count)(const Operator*);
  void (*compute)(void*, Context*);
  void (*destroy)(void*);
  Characteristic (*input_characteristic)(const Operator*, size_t);
  Characteristic (*output_characteristic)(const Operator*, size_t);
  int (*input_memory_type)(const Operator*, size_t);
  int (*variadic_input_min)(const Operator*);
  int (*variadic_input_homogeneous)(const Operator*);
  int (*variadic_output_min)(const Operator*);
  int (*variadic_output_homogeneous)(const Operator*);
  Status* (*create_kernel_v2)(const Operator*, const Api*, const KernelInfo*, void**);
  Status* (*compute_v2)(void*, Context*);
  Status* (*infer_shape)(const Operator*, void*);
  int (*start_version)(const Operator*);
  int (*end_version)(const Operator*);
  size_t (*may_inplace)(int**, int**);
  void (*release_may_inplace)(int*, int*);
  size_t (*alias_map)(int**, int**);
  void (*release_alias_map)(int*, int*);
};

}  // namespace ort
