// tandem.Attention: checks shapes and segments, then prepares rows and computes parts, both on the
// session's threads. The arithmetic is attention.cpp's.
#include "attention.h"
#include "operator.h"
#include "operators.h"
#include "processor.h"
#include "scratch.h"

namespace {

class AttentionOp {
 public:
  static constexpr const char* NAME = "Attention";
  static constexpr size_t INPUT_COUNT = 8;
  static ort::ElementType input_type(size_t index) {
    if (index < KEYS) return ort::FLOAT;
    return index < SEGMENTS ? ort::UNDEFINED : ort::INT32;  // the cache is float32 or float16
  }

  ort::Status* read(const ort::Api& api, const ort::KernelInfo* info) {
    api_ = &api;
    int64_t heads = 0, kv_heads = 0;
    ort::Status* status = api.attribute(info, "num_heads", &heads);
    if (status == nullptr) status = api.attribute(info, "kv_num_heads", &kv_heads);
    if (status == nullptr) status = api.attribute(info, "scale", &work_.scale);
    if (status == nullptr) status = api.attribute(info, "epsilon", &work_.epsilon);
    const bool is_possible = kv_heads > 0 && heads >= kv_heads && heads % kv_heads == 0 &&
                             heads / kv_heads <= MOST_GROUPED_HEADS;
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
    const Tensor keys = run.input(KEYS), values = run.input(VALUES), segments = run.input(SEGMENTS);
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
    else if (!covers(work, segments, rows, keys.dims[0]))
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
    attend(run, work, segments.as<const Segment>(), segments.dims[0], rows);
    return run.status;
  }

 private:
  // Places of inputs; the ones before them are float32.
  enum Input : size_t { KEYS = 5, VALUES = 6, SEGMENTS = 7 };
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
    return keys.dims[1] == int64_t(work.kv_heads) && size > 0 && size % HEAD_DIM_STEP == 0 &&
           size <= MOST_HEAD_DIM && joined.dims[joined.rank - 1] == width;
  }

  // Whether the segments are rows of slots that are there, and all rows of the run.
  static bool covers(const Attention& work, const Tensor& segments, size_t rows, int64_t slots) {
    if (segments.rank != 2 || segments.dims[1] != sizeof(Segment) / sizeof(int32_t)) return false;
    const Segment* list = segments.as<const Segment>();
    int64_t covered = 0;
    for (int64_t i = 0; i < segments.dims[0]; i++) {
      const Segment& one = list[i];
      if (one.slot < 0 || one.slot >= slots || one.tokens < 1 || one.past < 0 ||
          int64_t(one.past) + one.tokens > int64_t(work.capacity))
        return false;
      covered += one.tokens;
    }
    return covered == int64_t(rows);
  }

  static void attend(Run& run, Attention work, const Segment* segments, size_t count,
                     size_t rows) {
    const AttentionKernel& kernel = in_use(avx512::ATTENTION, avxvnni::ATTENTION, avx2::ATTENTION);
    const size_t block = kernel.block_tokens(work);
    size_t part_count = 0;
    for (size_t i = 0; i < count; i++)
      part_count += work.kv_heads * divided(segments[i].tokens, block);
    const size_t query_floats = rows * work.heads * work.size;
    Scratch tables(query_floats * 4 + part_count * sizeof(Part) + rows * sizeof(Place));
    if (tables.data() == nullptr) return run.refuse("Attention: out of memory");
    work.queries = reinterpret_cast<float*>(tables.data());
    Part* parts = reinterpret_cast<Part*>(work.queries + query_floats);
    Place* places = reinterpret_cast<Place*>(parts + part_count);
    describe(work, segments, count, block, parts, places);
    auto prepare = [&](size_t row) {
      kernel.prepare(work, segments[places[row].segment], places[row].token, row);
    };
    if (rows <= PREPARED_ALONE)
      for (size_t row = 0; row < rows; row++) prepare(row);
    else
      run.parallel(rows, prepare);
    auto compute = [&](size_t index) { kernel.compute(work, parts[index]); };
    run.parallel(part_count, compute);
  }

  // Which token of which segment a row is.
  struct Place {
    int32_t segment, token;
  };

  // Lists the parts, the longest first so that threads end together, and the rows' places.
  static void describe(const Attention& work, const Segment* segments, size_t count, size_t block,
                       Part* part, Place* place) {
    for (const bool is_token : {false, true}) {
      int32_t first = 0;
      for (size_t i = 0; i < count; i++) {
        const Segment& one = segments[i];
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

}  // namespace

const ort::Operator ATTENTION = described<AttentionOp>();
