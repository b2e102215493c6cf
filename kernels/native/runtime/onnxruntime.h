// The part of ONNX Runtime's C interface that the operators use.
//
// Releases of ONNX Runtime only ever append to its table of functions and to the description of an
// operator, so the places below hold for every release since 1.18. Declaring them here keeps a
// header of 9000 lines, most of it unused, out of the tree; tests/unit/kernels/test_operators.py
// would crash or fail at once with a wrong one.
//
// Source: OrtApi and OrtCustomOp in include/onnxruntime/core/session/onnxruntime_c_api.h of ONNX
// Runtime; the places are also the order of its table in core/session/onnxruntime_c_api.cc.
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

enum ElementType : int { UNDEFINED = 0, FLOAT = 1, UINT8 = 2, INT8 = 3, INT32 = 6, INT64 = 7, FLOAT16 = 10 };
enum Characteristic : int { REQUIRED = 0 };
enum ErrorCode : int { FAIL = 1, INVALID_ARGUMENT = 2 };
enum MemoryType : int { DEFAULT_MEMORY = 0 };

// Places of functions in OrtApi, under its own names for them.
enum Place : size_t {
  CreateStatus = 0,
  CreateCustomOpDomain = 26,
  CustomOpDomain_Add = 27,
  AddCustomOpDomain = 28,
  GetTensorMutableData = 51,
  GetTensorElementType = 60,
  GetDimensionsCount = 61,
  GetDimensions = 62,
  GetTensorTypeAndShape = 65,
  KernelInfoGetAttribute_float = 85,
  KernelInfoGetAttribute_int64 = 86,
  KernelContext_GetInput = 90,
  KernelContext_GetOutput = 91,
  ReleaseStatus = 93,
  ReleaseTensorTypeAndShapeInfo = 99,
  KernelContext_ParallelFor = 274,
};

struct Api {
  void* functions[KernelContext_ParallelFor + 1];

  template <typename Function>
  Function at(Place place) const {
    return reinterpret_cast<Function>(functions[place]);
  }
  Status* error(ErrorCode code, const char* message) const {
    return at<Status* (*)(int, const char*)>(CreateStatus)(code, message);
  }
  Status* create_domain(const char* name, Domain** domain) const {
    return at<Status* (*)(const char*, Domain**)>(CreateCustomOpDomain)(name, domain);
  }
  Status* add_operator(Domain* domain, const struct Operator* op) const {
    return at<Status* (*)(Domain*, const Operator*)>(CustomOpDomain_Add)(domain, op);
  }
  Status* add_domain(SessionOptions* options, Domain* domain) const {
    return at<Status* (*)(SessionOptions*, Domain*)>(AddCustomOpDomain)(options, domain);
  }
  Status* data(const Value* value, void** pointer) const {
    return at<Status* (*)(const Value*, void**)>(GetTensorMutableData)(value, pointer);
  }
  Status* element_type(const Shape* shape, int* type) const {
    return at<Status* (*)(const Shape*, int*)>(GetTensorElementType)(shape, type);
  }
  Status* rank(const Shape* shape, size_t* count) const {
    return at<Status* (*)(const Shape*, size_t*)>(GetDimensionsCount)(shape, count);
  }
  Status* dimensions(const Shape* shape, int64_t* values, size_t count) const {
    return at<Status* (*)(const Shape*, int64_t*, size_t)>(GetDimensions)(shape, values, count);
  }
  Status* shape(const Value* value, Shape** shape) const {
    return at<Status* (*)(const Value*, Shape**)>(GetTensorTypeAndShape)(value, shape);
  }
  Status* attribute(const KernelInfo* info, const char* name, float* value) const {
    using Entry = Status* (*)(const KernelInfo*, const char*, float*);
    return at<Entry>(KernelInfoGetAttribute_float)(info, name, value);
  }
  Status* attribute(const KernelInfo* info, const char* name, int64_t* value) const {
    using Entry = Status* (*)(const KernelInfo*, const char*, int64_t*);
    return at<Entry>(KernelInfoGetAttribute_int64)(info, name, value);
  }
  // `otherwise` where the node has no such attribute.
  int64_t attribute_or(const KernelInfo* info, const char* name, int64_t otherwise) const {
    int64_t value = 0;
    Status* status = attribute(info, name, &value);
    if (status == nullptr) return value;
    at<void (*)(Status*)>(ReleaseStatus)(status);
    return otherwise;
  }
  Status* input(const Context* context, size_t index, const Value** value) const {
    using Entry = Status* (*)(const Context*, size_t, const Value**);
    return at<Entry>(KernelContext_GetInput)(context, index, value);
  }
  Status* output(Context* context, size_t index, const int64_t* dims, size_t rank,
                 Value** value) const {
    using Entry = Status* (*)(Context*, size_t, const int64_t*, size_t, Value**);
    return at<Entry>(KernelContext_GetOutput)(context, index, dims, rank, value);
  }
  void release(Shape* shape) const { at<void (*)(Shape*)>(ReleaseTensorTypeAndShapeInfo)(shape); }
  // Calls function(data, i) for every i < total on the session's threads.
  Status* parallel_for(const Context* context, void (*function)(void*, size_t), size_t total,
                       void* data) const {
    using Entry = Status* (*)(const Context*, void (*)(void*, size_t), size_t, size_t, void*);
    return at<Entry>(KernelContext_ParallelFor)(context, function, total, 0, data);
  }
};

struct ApiBase {
  const Api* (*get_api)(uint32_t version);
  const char* (*version)();
};

// Describes an operator: OrtCustomOp. Members that may be null are.
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
  MemoryType (*input_memory_type)(const Operator*, size_t);
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
