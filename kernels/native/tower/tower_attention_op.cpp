// `tandem.TowerAttention`: from the product of queries, keys and values to what attention makes of
// them. Inputs: the product [P, 3 * hidden], cosines and sines [P, head_dim / 2] of the rotary
// angles, and the borders [S + 1] of the segments, which attend to themselves alone. The attribute
// `fast` chooses integers, or bfloat16 in tiles, instead of float32.
#include <type_traits>

#include "members.h"
#include "operator.h"
#include "operators.h"
#include "processor.h"
#include "scratch.h"
#include "tower_attention.h"
#include "tower_attention_fast.h"
#include "tower_attention_tiles.h"

namespace {

const TowerAttentionKernel& kernel_in_use() {
  return in_use(avx512::TOWER_ATTENTION, avxvnni::TOWER_ATTENTION, avx2::TOWER_ATTENTION);
}

const TowerAttentionFastKernel& fast_kernel_in_use() {
  return in_use(avx512::TOWER_ATTENTION_FAST, avxvnni::TOWER_ATTENTION_FAST,
                avx2::TOWER_ATTENTION_FAST);
}

// The segments that lie in a run of rows, by their borders within it.
class Borders {
 public:
  Borders(const Tensor& bounds, const Rows& rows)
      : at_(bounds.as<const int64_t>()), first_(rows.first) {
    const int64_t* last = at_ + bounds.dims[0] - 1;
    while (at_ < last && *at_ < first_) at_++;
    while (at_ < last && *last > first_ + int64_t(rows.count)) last--;
    segments_ = last - at_;
  }
  size_t segments() const { return segments_; }
  size_t operator[](size_t index) const { return at_[index] - first_; }

 private:
  const int64_t* at_;
  int64_t first_;
  size_t segments_;
};

class TowerAttentionOp {
 public:
  static constexpr const char* NAME = "TowerAttention";
  static constexpr size_t INPUT_COUNT = 4;
  static ort::ElementType input_type(size_t index) { return index < 3 ? ort::FLOAT : ort::INT64; }

  ort::Status* read(const ort::Api& api, const ort::KernelInfo* info) {
    api_ = &api;
    ort::Status* status = api.attribute(info, "num_heads", &heads_);
    if (status == nullptr) status = api.attribute(info, "fast", &fast_);
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
    for (const Rows& live : LiveRows(rows)) {
      TowerAttention work = {};
      work.joined = joined.as<const float>() + live.first * 3 * heads_ * size;
      work.cosines = cosines.as<const float>() + live.first * (size / 2);
      work.sines = sines.as<const float>() + live.first * (size / 2);
      work.patches = live.count;
      work.heads = heads_;
      work.size = size;
      work.out = out + live.first * heads_ * size;
      attend_rows(run, work, Borders(bounds, live));
    }
    return run.status;
  }

 private:
  static constexpr size_t ALIGNMENT = 64;
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

  void attend_rows(Run& run, const TowerAttention& work, const Borders& borders) const {
    if (instruction_set() == InstructionSet::AMX)
      attend_tiled(run, fast_ != 0 ? amx::TOWER_ATTENTION_COARSE : amx::TOWER_ATTENTION_TILED, work,
                   borders);
    else if (fast_ != 0)
      attend_fast(run, work, borders);
    else
      attend(run, work, borders);
  }

  static void attend(Run& run, TowerAttention work, const Borders& borders) {
    const TowerAttentionKernel& kernel = kernel_in_use();
    const size_t segments = borders.segments();
    size_t blocks = 0;
    for (size_t i = 0; i < segments; i++)
      blocks += divided(borders[i + 1] - borders[i], kernel.block);
    const size_t numbers = work.patches * work.heads * work.size, part_count = blocks * work.heads;
    Scratch scratch(2 * numbers * sizeof(float) + part_count * sizeof(TowerPart));
    if (scratch.data() == nullptr) return run.refuse("TowerAttention: out of memory");
    work.keys = reinterpret_cast<float*>(scratch.data());
    work.values = work.keys + numbers;
    auto* parts = reinterpret_cast<TowerPart*>(work.values + numbers);
    describe(work, borders, kernel.block, parts);
    prepare_all(run, work);
    auto compute = [&](size_t index) { kernel.compute(work, parts[index]); };
    run.parallel(part_count, compute);
  }

  // What one thread prepares at a time, of all segments and heads; counts them where there is no
  // list. Neighbours are heads of the same patches, whose rows are read while they are near.
  static size_t describe_tiles(const TowerAttention& work, const Borders& borders,
                               TowerTiledPart* list) {
    size_t count = 0, tile = 0;
    for (size_t i = 0; i < borders.segments(); i++) {
      const size_t begin = borders[i], end = borders[i + 1];
      for (size_t first = begin; first < end; first += TILED_KEYS)
        for (size_t head = 0; head < work.heads; head++, count++)
          if (list != nullptr) list[count] = {{head, begin, end, first}, i, tile};
      tile += divided(end - begin, TILED_KEYS);
    }
    return count;
  }

  // What one thread computes at a time. Neighbours share keys and values.
  static size_t describe_queries(const TowerAttention& work, const Borders& borders,
                                 TowerTiledPart* list) {
    size_t count = 0, tile = 0;
    for (size_t i = 0; i < borders.segments(); i++) {
      const size_t begin = borders[i], end = borders[i + 1];
      for (size_t head = 0; head < work.heads; head++)
        for (size_t first = begin; first < end; first += TILED_QUERIES, count++)
          if (list != nullptr) list[count] = {{head, begin, end, first}, i, tile};
      tile += divided(end - begin, TILED_KEYS);
    }
    return count;
  }

  static void centre_all(Run& run, const TowerAttentionTiledKernel& kernel,
                         const TowerAttentionTiled& work, const Borders& borders) {
    const size_t heads = work.base.heads;
    auto centre = [&](size_t index) {
      const size_t segment = index / heads;
      const size_t begin = borders[segment], end = borders[segment + 1];
      if (begin < end) kernel.centre(work, {{index % heads, begin, end, begin}, segment, 0});
    };
    run.parallel(borders.segments() * heads, centre);
  }

  static void attend_tiled(Run& run, const TowerAttentionTiledKernel& kernel,
                           const TowerAttention& base, const Borders& borders) {
    const size_t count = describe_tiles(base, borders, nullptr);
    const size_t part_count = describe_queries(base, borders, nullptr);
    TowerAttentionTiled work = {};
    work.base = base;
    work.key_tiles = count / base.heads;
    work.steps = tiled_steps(base.size);
    const size_t bytes = count * work.steps * kernel.step_bytes;
    const size_t centred = kernel.centre == nullptr ? 0 : borders.segments() * base.heads;
    Scratch scratch(3 * bytes + (count + part_count) * sizeof(TowerTiledPart) +
                    centred * 2 * base.size * sizeof(float));
    if (scratch.data() == nullptr) return run.refuse("TowerAttention: out of memory");
    work.queries = reinterpret_cast<uint8_t*>(scratch.data());
    work.keys = work.queries + bytes;
    work.values = work.keys + bytes;
    auto* pieces = reinterpret_cast<TowerTiledPart*>(work.values + bytes);
    auto* parts = pieces + count;
    describe_tiles(base, borders, pieces);
    describe_queries(base, borders, parts);
    work.centres = reinterpret_cast<float*>(parts + part_count);
    if (centred != 0) centre_all(run, kernel, work, borders);
    auto prepare = [&](size_t index) { kernel.prepare(work, pieces[index]); };
    run.parallel(count, prepare);
    auto compute = [&](size_t index) { kernel.compute(work, parts[index]); };
    run.parallel(part_count, compute);
  }

  static void prepare_all(Run& run, const TowerAttention& work) {
    const TowerAttentionKernel& kernel = kernel_in_use();
    auto prepare = [&](size_t index) {
      const size_t end = (index + 1) * PREPARED_AT_ONCE;
      for (size_t patch = index * PREPARED_AT_ONCE; patch < end && patch < work.patches; patch++)
        kernel.prepare(work, patch);
    };
    run.parallel(divided(work.patches, PREPARED_AT_ONCE), prepare);
  }

  // The arrays of the working memory, one after another; counts bytes where `from` is null.
  static size_t lay_out(TowerAttentionFast& work, size_t segments, char* from) {
    char* at = from;
    const auto take = [&at](auto*& array, size_t count) {
      array = reinterpret_cast<std::remove_reference_t<decltype(array)>>(at);
      at += divided(count * sizeof(*array), ALIGNMENT) * ALIGNMENT;
    };
    const size_t rows = work.base.patches * work.base.heads, numbers = rows * work.base.size;
    take(work.base.keys, numbers);
    take(work.base.values, numbers);
    take(work.key_scales, rows);
    take(work.value_ranges, segments * work.base.heads * 2 * work.base.size);
    take(work.value_pairs, work.base.heads * work.pairs * work.base.size * 2);
    take(work.key_bytes, rows * work.padded);
    return at - from;
  }

  static void attend_fast(Run& run, const TowerAttention& base, const Borders& borders) {
    const TowerAttentionFastKernel& kernel = fast_kernel_in_use();
    const size_t segments = borders.segments();
    TowerAttentionFast work = {};
    work.base = base;
    work.padded = divided(base.size, 4) * 4;
    size_t blocks = 0;
    for (size_t i = 0; i < segments; i++) {
      work.pairs += divided(borders[i + 1] - borders[i], 2);
      blocks += divided(borders[i + 1] - borders[i], kernel.block);
    }
    const size_t bytes = lay_out(work, segments, nullptr);
    Scratch scratch(bytes + segments * sizeof(TowerSegment) + blocks * sizeof(FastPart));
    if (scratch.data() == nullptr) return run.refuse("TowerAttention: out of memory");
    lay_out(work, segments, scratch.data());
    auto* list = reinterpret_cast<TowerSegment*>(scratch.data() + bytes);
    auto* parts = reinterpret_cast<FastPart*>(list + segments);
    describe_fast(borders, kernel.block, list, parts);
    prepare_all(run, work.base);
    auto quantize = [&](size_t index) {
      const TowerSegment& segment = list[index / base.heads];
      if (segment.begin < segment.end) kernel.quantize(work, segment, index % base.heads);
    };
    run.parallel(segments * base.heads, quantize);
    auto compute = [&](size_t index) {
      const FastPart& part = parts[index % blocks];
      kernel.compute(work, list[part.segment], index / blocks, part.first);
    };
    run.parallel(blocks * base.heads, compute);
  }

  struct FastPart {
    size_t segment, first;
  };

  static void describe_fast(const Borders& borders, size_t block, TowerSegment* segment,
                            FastPart* part) {
    size_t pair = 0;
    for (size_t i = 0; i < borders.segments(); i++) {
      const size_t begin = borders[i], end = borders[i + 1];
      *segment++ = {i, begin, end, pair};
      pair += divided(end - begin, 2);
      for (size_t first = begin; first < end; first += block) *part++ = {i, first};
    }
  }

  // Neighbouring parts share their keys and values, which so stay in a thread's cache.
  static void describe(const TowerAttention& work, const Borders& borders, size_t block,
                       TowerPart* part) {
    for (size_t i = 0; i < borders.segments(); i++)
      for (size_t head = 0; head < work.heads; head++)
        for (size_t first = borders[i]; first < borders[i + 1]; first += block)
          *part++ = {head, borders[i], borders[i + 1], first};
  }

  const ort::Api* api_ = nullptr;
  int64_t heads_ = 0, fast_ = 0;
};

}  // namespace

const ort::Operator TOWER_ATTENTION = described<TowerAttentionOp>();
