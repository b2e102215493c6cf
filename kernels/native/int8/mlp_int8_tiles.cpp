// The MLP of a block with matrix tiles (AMX), as int8_tiles.h describes.
//
// The hidden numbers never leave the second cache. A row's have a scale for each block of 512, as a
// scale for all would be known only when all are computed; a block's sums are added in float32.
#include "mlp_int8.h"

#include "int8_tiles.h"

namespace TANDEM_ISA {
namespace {

constexpr size_t HIDDEN = DEPTH * INT8_STEP;  // hidden numbers of a block
constexpr size_t HIDDEN_TILES = HIDDEN / INT8_LANES;
constexpr float LEAST_GELU = -0.1701f;  // below what either GELU gives
static_assert(INT8_MLP_ROWS <= BATCH * ROWS);

// Where the working memory of so many rows has what.
struct MlpMemory {
  uint8_t* bytes;     // [row tile][step][32][64], of the first product's rows
  Int8Range* ranges;  // [rows]
  float* hidden;      // [weight tile of a block][rows][32]
  float* peaks;       // [rows][WIDTH], of a block's hidden numbers
  uint8_t* wide;      // [row tile][step][32][64], of the second product's rows
  float* scales;      // [block][rows], of them
  float* totals;      // [rows][32], sums of blocks
  size_t size;

  INLINE MlpMemory(const Int8Mlp& mlp, size_t rows, uint8_t* from) : size(0) {
    const size_t blocks = (mlp.second.padded + HIDDEN - 1) / HIDDEN;
    const auto take = [&](auto*& pointer, size_t count) {
      pointer = reinterpret_cast<decltype(+pointer)>(from + size);
      size += (count * sizeof(*pointer) + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
    };
    take(bytes, rows * mlp.first.padded);
    take(ranges, rows);
    take(hidden, rows * HIDDEN);
    take(peaks, rows * WIDTH);
    take(wide, rows * mlp.second.padded);
    take(scales, rows * blocks);
    take(totals, rows * INT8_LANES);
  }
};

// As gelu_tanh, within 2e-5 or x * 1e-4: a small part of what rounding to bytes loses.
INLINE Floats coarse_gelu_tanh(Floats x) {
  constexpr float FACTOR = -2 * 0.7978845608028654f * 1.4426950408889634f;
  const Floats inner = fma(mul(x, x), broadcast(FACTOR * 0.044715f), broadcast(FACTOR));
  const Floats u = mul(x, inner);
  // 2 to the power of what is above the whole number: a cubic, of least largest relative error
  const Floats r = _mm512_reduce_ps(u, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  Floats p = fma(broadcast(0.07802452f), r, broadcast(0.22606716f));
  p = fma(p, r, broadcast(0.69583354f));
  p = fma(p, r, broadcast(0.99992522f));
  const Floats power = _mm512_scalef_ps(p, u);
  return mul(x, _mm512_rcp14_ps(add(power, broadcast(1.0f))));
}

// The scale of a row's bytes, and what a byte of 0 stands for.
INLINE Int8Range lowest_of(Int8Range range) {
  return {range.scale, range.middle - 128.0f * range.scale};
}

// The first product's outputs of one block of hidden numbers, activated, with their rows' peaks.
INLINE void compute_hidden(const Int8Weight& weight, size_t rows, size_t begin, size_t end,
                           const MlpMemory& memory) {
  for (size_t i = 0; i < rows * WIDTH; i += WIDTH)
    store(memory.peaks + i, broadcast(LEAST_GELU));
  float* to = nullptr;
  Columns columns;
  const auto prepare = [&](size_t index) __attribute__((always_inline)) {
    to = memory.hidden + (index - begin) * rows * INT8_LANES;
    columns.read(weight, index);
  };
  const bool is_tanh = weight.activation == Activation::GELU_TANH;
  const auto finish = [&](const int32_t* sums, size_t row) __attribute__((always_inline)) {
    const Floats scale = broadcast(memory.ranges[row].scale);
    const Floats lowest = broadcast(memory.ranges[row].middle);
    Floats highest = load(memory.peaks + row * WIDTH);
#pragma unroll
    for (size_t j = 0; j < 2; j++) {
      const Floats whole = to_floats(load_ints(sums + j * WIDTH));
      const Floats product = fma(whole, scale, mul(columns.totals[j], lowest));
      const Floats x = fma(product, columns.gains[j], columns.biases[j]);
      const Floats made = is_tanh ? coarse_gelu_tanh(x) : gelu(x);
      store(to + row * INT8_LANES + j * WIDTH, made);
      highest = max(highest, made);
    }
    store(memory.peaks + row * WIDTH, highest);
  };
  multiply_batch(weight, memory.bytes, rows / ROWS, begin, end, prepare, finish);
}

// Rounds a block's hidden numbers to bytes above LEAST_GELU.
INLINE void narrow_hidden(size_t rows, size_t steps, size_t padded, size_t block,
                          const MlpMemory& memory) {
  for (size_t row = 0; row < rows; row++) {
    const float most = peak(load(memory.peaks + row * WIDTH)) - LEAST_GELU;
    // What is no number in a row makes all its outputs none.
    const float scale = memory.ranges[row].scale * 0.0f + (most + 1e-6f) / 255.0f;
    memory.scales[block * rows + row] = scale;
    const Floats inverse = broadcast(1.0f / scale);
    const Floats offset = broadcast(-LEAST_GELU / scale);
    uint8_t* to = memory.wide + row / ROWS * ROWS * padded + block * DEPTH * STEP +
                  row % ROWS * INT8_STEP;
    const float* from = memory.hidden + row * INT8_LANES;
    for (size_t step = 0; step < steps; step++, to += STEP, from += 2 * rows * INT8_LANES) {
      const auto rounded = [&](size_t tile, size_t j) __attribute__((always_inline)) {
        return to_ints(fma(load(from + tile * rows * INT8_LANES + j * WIDTH), inverse, offset));
      };
      const Ints low = _mm512_packus_epi32(rounded(0, 0), rounded(0, 1));
      const Ints high = _mm512_packus_epi32(rounded(1, 0), rounded(1, 1));
      _mm512_store_si512(to, in_order(_mm512_packus_epi16(low, high)));
    }
  }
}

// One weight tile of the second product, and what follows it; `rows` of the outputs exist.
INLINE void compute_outputs(const Int8Weight& weight, size_t padded_rows, size_t index,
                            const MlpMemory& memory, const float* x, size_t rows, float* out) {
  alignas(64) Sums sums[2];
  const int8_t* values = weight.values + index * weight.padded * INT8_LANES;
  const size_t steps = weight.padded / INT8_STEP, tiles = padded_rows / ROWS;
  const size_t blocks = (steps + DEPTH - 1) / DEPTH, column = index * INT8_LANES;
  Columns columns;
  columns.read(weight, index);
  Floats lowest[2];
  for (size_t j = 0; j < 2; j++) lowest[j] = mul(columns.totals[j], broadcast(LEAST_GELU));
  const auto finish = [&](size_t unit, size_t row) __attribute__((always_inline)) {
    const size_t block = unit / tiles, at = unit % tiles * ROWS + row;
    const Floats scale = broadcast(memory.scales[block * padded_rows + at]);
    float* totals = memory.totals + at * INT8_LANES;
#pragma unroll
    for (size_t j = 0; j < 2; j++) {
      const Ints whole = load_ints(sums[unit % 2] + row * INT8_LANES + j * WIDTH);
      const Floats before = block == 0 ? lowest[j] : load(totals + j * WIDTH);
      const Floats made = fma(to_floats(whole), scale, before);
      if (block + 1 < blocks) {
        store(totals + j * WIDTH, made);
      } else if (at < rows) {
        const size_t to = at * weight.outputs + column + j * WIDTH;
        const Floats residual = _mm512_maskz_loadu_ps(columns.exist[j], x + to);
        const Floats product = fma(made, columns.gains[j], columns.biases[j]);
        _mm512_mask_storeu_ps(out + to, columns.exist[j], add(product, residual));
      }
    }
  };
  Ahead ahead(values + HIDDEN * INT8_LANES, tiles);
  for (size_t unit = 0; unit < blocks * tiles; unit++) {
    const size_t first = unit / tiles * DEPTH, count = least(DEPTH, steps - first);
    const uint8_t* from = memory.wide + unit % tiles * ROWS * weight.padded + first * STEP;
    Spread spread(unit > 0 ? ROWS : 0, count);
    zero_sums();
    multiply_steps(from, values + first * STEP, count, [&]() __attribute__((always_inline)) {
      ahead.ask();
      spread.share([&](size_t row) __attribute__((always_inline)) { finish(unit - 1, row); });
    });
    store_sums(sums[unit % 2]);
  }
  for (size_t row = 0; row < ROWS; row++) finish(blocks * tiles - 1, row);
}

size_t padded_rows_of(size_t rows) { return (rows + ROWS - 1) / ROWS * ROWS; }

size_t working_bytes(const Int8Mlp& mlp, size_t rows) {
  return MlpMemory(mlp, padded_rows_of(rows), nullptr).size;
}

void compute(const Int8Mlp& mlp, const float* x, size_t rows, uint8_t* working, float* out) {
  const size_t padded_rows = padded_rows_of(rows);
  const MlpMemory memory(mlp, padded_rows, working);
  for (size_t first = 0; first < padded_rows; first += ROWS)
    MATMUL_INT8.quantize(mlp.first, x + first * mlp.first.inputs, least(ROWS, rows - first),
                         {memory.bytes + first * mlp.first.padded, memory.ranges + first});
  for (size_t row = 0; row < rows; row++) memory.ranges[row] = lowest_of(memory.ranges[row]);
  // Rows that do not exist are computed too, of whatever lies there.
  for (size_t row = rows; row < padded_rows; row++) memory.ranges[row] = {1.0f, 0.0f};
  begin_tiles();
  for (size_t block = 0; block * HIDDEN < mlp.second.padded; block++) {
    const size_t begin = block * HIDDEN_TILES, end = least(begin + HIDDEN_TILES, mlp.first.tiles);
    compute_hidden(mlp.first, padded_rows, begin, end, memory);
    const size_t steps = least(DEPTH, mlp.second.padded / INT8_STEP - block * DEPTH);
    narrow_hidden(padded_rows, steps, mlp.second.padded, block, memory);
  }
  for (size_t index = 0; index < mlp.second.tiles; index++)
    compute_outputs(mlp.second, padded_rows, index, memory, x, rows, out);
  _tile_release();
}

}  // namespace

const Int8MlpKernel MLP_INT8 = {working_bytes, compute};

}  // namespace TANDEM_ISA
