// What the shared library offers: its operators, to a session of ONNX Runtime; to Python, which
// instruction set they use.
#include "members.h"
#include "onnxruntime.h"
#include "operators.h"
#include "processor.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

constexpr const ort::Operator* OPERATORS[] = {
    &MATMUL_INT4,
    &ATTENTION,
    &MATMUL_INT8,
    &MLP_INT8,
    &MATMUL_FLOAT,
    &TOWER_ATTENTION,
};

}  // namespace

// What ONNX Runtime calls when a session registers the library.
EXPORTED ort::Status* RegisterCustomOps(ort::SessionOptions* options, const ort::ApiBase* base) {
  const ort::Api* api = base->get_api(ort::API_VERSION);
  if (api == nullptr) return nullptr;  // older than any this project installs
  // Each session gets a domain of its own, which nothing frees: some 100 bytes.
  ort::Domain* domain = nullptr;
  ort::Status* status = api->create_domain("tandem", &domain);
  for (const ort::Operator* op : OPERATORS)
    if (status == nullptr) status = api->add_operator(domain, op);
  return status != nullptr ? status : api->add_domain(options, domain);
}

// The instruction set in use, or an empty text where the operators cannot run.
EXPORTED const char* tandem_instruction_set() {
  switch (instruction_set()) {
    case InstructionSet::AMX:  // only the tower's operators have kernels for it
    case InstructionSet::AVX512: return "avx512";
    case InstructionSet::AVXVNNI: return "avxvnni";
    case InstructionSet::AVX2: return "avx2";
    default: return "";
  }
}

// Whether the tower's operators multiply matrix tiles (AMX).
EXPORTED int tandem_has_tiles() { return instruction_set() == InstructionSet::AMX; }

// Lets tests run the kernels of lesser processors: 1 is AVX2, 2 AVX-VNNI, 3 AVX-512, 4 all there is.
EXPORTED void tandem_allow(int most) { allow(static_cast<InstructionSet>(most)); }

// The next run of a tower's graph on this thread is a pass of so many images; see members.h.
EXPORTED int tandem_begin_pass(const int64_t* bounds, const int32_t* leaves_at,
                               int64_t* rows_computed, size_t images) {
  return begin_pass(bounds, leaves_at, rows_computed, images);
}

EXPORTED void tandem_end_pass() { end_pass(); }
