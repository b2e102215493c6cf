// `tandem.TowerAttention`: from the product of queries, keys and values to what attention makes of
// them. Inputs: the product [P, 3 * hidden], cosines and sines [P, head_dim / 2] of the rotary
// angles, and the borders [S + 1] of the segments, which attend to themselves alone.
#include "operator.h"
#include "operators.h"
#include "processor.h"
#include "scratch.h"
#include "tower_attention.h"

namespace {

const TowerAttentionKernel& kernel_in_use() {
  return in_use(avx512::TOWER_ATTENTION, avxvnni::TOWER_ATTENTION, avx2::TOWER_ATTENTION);
}

class TowerAttentionOp {
 public:
  static constexpr const char* NAME = "TowerAttention";
  static constexpr size_t INPUT_COUNT = 4;
  static ort::ElementType input_type(size_t index) { return index < 3 ? ort::FLOAT : ort::INT64; }

  ort::Status* read(const ort::Api& api, const ort::KernelInfo* info) {
    api_ = &api;
    ort::Status* status = api.attribute(info, "num_heads", &heads_);
    if (status == nullptr && heads_ < 1)
      status = api.error(ort::INVALID_ARGUMENT, "TowerAttention: num_heads is not positive");
    return status;
  }

  ort::Status* compute(ort::Context* context) const {
    Run run(*api_, context);
    const Tensor joined = run.input(0), cosines = run.input(1), sines = run.input(2);
    const Tensor bounds = run.input(3);
    if (run.status != nullptr) return run.status;
    const size_t rows = joined.rank == 2 ? joined.dims[0] : 0;
    const size_t size = joined.rank == 2 ? joined.dims[1] / (3 * heads_) : 0;
    if (!joined.has_shape({rows, 3 * size_t(heads_) * size}) || size < 2 || size % 2 != 0 ||
        size > MOST_SIZE || !cosines.has_shape({rows, size / 2}) ||
        !sines.has_shape({rows, size / 2}) || !covers(bounds, rows))
      run.refuse("TowerAttention: the shapes of the inputs do not fit each other");
    const int64_t dims[] = {int64_t(rows), int64_t(heads_ * size)};
    float* out = run.output(dims, 2);
    if (run.status != nullptr || rows == 0) return run.status;
    TowerAttention work = {};
    work.joined = joined.as<const float>();
    work.cosines = cosines.as<const float>();
    work.sines = sines.as<const float>();
    work.patches = rows;
    work.heads = heads_;
    work.size = size;
    work.out = out;
    attend(run, work, bounds);
    return run.status;
  }

 private:
  static constexpr size_t MOST_SIZE = 256;   // of a head
  static constexpr size_t PREPARED_AT_ONCE = 32;  // patches: a thread's smallest piece of work

  // Whether the bounds rise from 0 to the number of rows.
  static bool covers(const Tensor& bounds, size_t rows) {
    if (bounds.rank != 1 || bounds.dims[0] < 1) return false;
    const int64_t* at = bounds.as<const int64_t>();
    for (int64_t i = 1; i < bounds.dims[0]; i++)
      if (at[i] < at[i - 1]) return false;
    return at[0] == 0 && at[bounds.dims[0] - 1] == int64_t(rows);
  }

  static void attend(Run& run, TowerAttention work, const Tensor& bounds) {
    const TowerAttentionKernel& kernel = kernel_in_use();
    const int64_t* borders = bounds.as<const int64_t>();
    const size_t segments = bounds.dims[0] - 1;
    size_t blocks = 0;
    for (size_t i = 0; i < segments; i++)
      blocks += divided(borders[i + 1] - borders[i], kernel.block);
    const size_t numbers = work.patches * work.heads * work.size, part_count = blocks * work.heads;
    Scratch scratch(2 * numbers * sizeof(float) + part_count * sizeof(TowerPart));
    if (scratch.data() == nullptr) return run.refuse("TowerAttention: out of memory");
    work.keys = reinterpret_cast<float*>(scratch.data());
    work.values = work.keys + numbers;
    auto* parts = reinterpret_cast<TowerPart*>(work.values + numbers);
    describe(work, borders, segments, kernel.block, parts);
    auto prepare = [&](size_t index) {
      const size_t end = (index + 1) * PREPARED_AT_ONCE;
      for (size_t patch = index * PREPARED_AT_ONCE; patch < end && patch < work.patches; patch++)
        kernel.prepare(work, patch);
    };
    run.parallel(divided(work.patches, PREPARED_AT_ONCE), prepare);
    auto compute = [&](size_t index) { kernel.compute(work, parts[index]); };
    run.parallel(part_count, compute);
  }

  // Neighbouring parts share their keys and values, which so stay in a thread's cache.
  static void describe(const TowerAttention& work, const int64_t* borders, size_t segments,
                       size_t block, TowerPart* part) {
    for (size_t i = 0; i < segments; i++)
      for (size_t head = 0; head < work.heads; head++)
        for (size_t first = borders[i]; first < size_t(borders[i + 1]); first += block)
          *part++ = {head, size_t(borders[i]), size_t(borders[i + 1]), first};
  }

  const ort::Api* api_ = nullptr;
  int64_t heads_ = 0;
};

}  // namespace

const ort::Operator TOWER_ATTENTION = described<TowerAttentionOp>();
