// Products of INT4 weights with activations that are quantized to int8 per row and block.
//
// A register holds four neighbouring inputs of 16 (AVX2: 8) outputs, as layout.py packs them, and
// one dot product instruction adds four products to each. The weights of a tile of 32 outputs are
// read from beginning to end: one stream a thread, which the processor reads ahead best. Weights
// are used as unsigned nibbles; their zero point of 8 is in the sums' starting values. Sums of a
// block are exact integers; blocks are added in float32 in their order, whatever the number of rows
// and threads, so that a row's result does not depend on what is computed beside it.
//
// One weight register serves every row of a tile, so few rows cost little more than reading the
// weights, and many rows keep the multipliers busy.
#include "matmul.h"

#include <string.h>

#include "simd.h"

namespace TANDEM_ISA {
namespace {

constexpr int COLUMNS = TILE_OUTPUTS / WIDTH;  // registers of a tile's outputs
constexpr int HALF = COLUMNS / 2;              // gated: registers of gates, the others are ups
constexpr int ROWS = WIDTH == 16 ? 12 : 4;             // what the registers have room for
constexpr int FEW_ROWS = WIDTH == 16 ? ROWS : 2;       // that have room for a whole tile's columns
constexpr int FEW_COLUMNS = WIDTH == 16 ? COLUMNS : 2;  // of more rows
constexpr size_t SHORT_OCTETS = 4;                     // whose products fit into 16 bits
// Bytes between what is multiplied and what is asked for. The processor's own prefetching stops at
// every page of 4 KB; without this a product of twelve rows takes a third longer.
constexpr size_t AHEAD = 3072;

struct Results {
  Floats values[ROWS][COLUMNS];
};

// Adds the products of `count` octets with C registers of columns, the first of which `values` is
// at; M == 1 has a second chain of sums, since a single one would wait for itself.
template <int M, int C>
INLINE void add_octets(const uint8_t* values, const int32_t* quads, size_t count,
                       Ints (&low_sums)[M][C], Ints (&high_sums)[C]) {
  Ints short_sums[M][C];
  if (HAS_SHORT_SUMS)
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int j = 0; j < C; j++) short_sums[m][j] = broadcast(int32_t(0));
  const auto add_dot = [&](int m, int j, Ints& total, Ints weights, Ints x) __attribute__((always_inline)) {
    if (HAS_SHORT_SUMS)
      short_sums[m][j] = dot_short(short_sums[m][j], weights, x);
    else
      total = dot(total, weights, x);
  };
  for (size_t octet = 0; octet < count; octet++) {
    Ints low[C], high[C];
#pragma unroll
    for (int j = 0; j < C; j++) {
      const uint8_t* at = values + j * WIDTH * 4;
      if (j % (64 / (WIDTH * 4)) == 0)
        _mm_prefetch(reinterpret_cast<const char*>(at + AHEAD), _MM_HINT_T0);
      const Ints both = load_bytes(at);
      low[j] = low_nibbles(both);
      high[j] = high_nibbles(both);
    }
    values += TILE_OUTPUTS * 4;
#pragma unroll
    for (int m = 0; m < M; m++) {
      const Ints x = broadcast(quads[m]);
#pragma unroll
      for (int j = 0; j < C; j++) add_dot(m, j, low_sums[m][j], low[j], x);
    }
#pragma unroll
    for (int m = 0; m < M; m++) {
      const Ints x = broadcast(quads[M + m]);
#pragma unroll
      for (int j = 0; j < C; j++)
        add_dot(m, j, M == 1 ? high_sums[j] : low_sums[m][j], high[j], x);
    }
    quads += 2 * M;
  }
  if (HAS_SHORT_SUMS)
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int j = 0; j < C; j++) low_sums[m][j] = add_short(low_sums[m][j], short_sums[m][j]);
}

// Columns [first, first + C) of a tile.
template <int M, int C>
INLINE void column_sums(const Weight& weight, const Activations& tile, size_t index, int first,
                        Results& results) {
  const size_t octets = weight.block_size / 8;
  const uint8_t* values =
      weight.values + (index * weight.blocks * octets * TILE_OUTPUTS + first * WIDTH) * 4;
  const float* scales = weight.scales + index * weight.blocks * TILE_OUTPUTS + first * WIDTH;
  const int32_t* quads = tile.quads;
  const size_t together = HAS_SHORT_SUMS ? SHORT_OCTETS : octets;
  for (int m = 0; m < M; m++)
    for (int j = 0; j < C; j++) results.values[m][first + j] = broadcast(0.0f);
  for (size_t block = 0; block < weight.blocks; block++) {
    Ints low_sums[M][C], high_sums[C];
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int j = 0; j < C; j++) low_sums[m][j] = broadcast(tile.starts[block * M + m]);
    for (int j = 0; j < C; j++) high_sums[j] = broadcast(int32_t(0));
    for (size_t octet = 0; octet < octets; octet += together) {
      const size_t left = octets - octet, count = left < together ? left : together;
      add_octets<M, C>(values, quads, count, low_sums, high_sums);
      values += count * TILE_OUTPUTS * 4;
      quads += count * 2 * M;
    }
#pragma unroll
    for (int j = 0; j < C; j++) {
      if (M == 1) low_sums[0][j] = add(low_sums[0][j], high_sums[j]);
      const Floats scale = load(scales + j * WIDTH);
#pragma unroll
      for (int m = 0; m < M; m++) {
        Floats& total = results.values[m][first + j];
        total = fma(to_floats(low_sums[m][j]), mul(scale, broadcast(tile.scales[block * M + m])),
                    total);
      }
    }
    scales += TILE_OUTPUTS;
  }
}

// Few rows wait for memory, and read a tile from beginning to end; more rows wait for the
// multipliers, and take as many columns as the registers have room for.
template <int M>
INLINE void sums(const Weight& weight, const Activations& tile, size_t index, Results& results) {
  constexpr int C = M > FEW_ROWS ? FEW_COLUMNS : COLUMNS;
  for (int first = 0; first < COLUMNS; first += C)
    column_sums<M, C>(weight, tile, index, first, results);
}

INLINE Floats silu(Floats x) {
  return div(x, add(broadcast(1.0f), exp(sub(broadcast(0.0f), x))));
}

// Writes the outputs in N registers; `valid` of them exist.
template <int N>
INLINE void write(float* out, const Floats* parts, size_t valid) {
  if (valid >= N * WIDTH) {
#pragma unroll
    for (int p = 0; p < N; p++) store(out + p * WIDTH, parts[p]);
    return;
  }
  float whole[N * WIDTH];
  for (int p = 0; p < N; p++) store(whole + p * WIDTH, parts[p]);
  memcpy(out, whole, valid * sizeof(float));
}

template <int M, bool GATED>
INLINE void multiply_tile(const Weight& weight, const Activations& tile, size_t index, float* out) {
  Results results;
  sums<M>(weight, tile, index, results);
  const size_t column = index * (GATED ? TILE_OUTPUTS / 2 : TILE_OUTPUTS);
  for (int m = 0; m < M; m++) {
    float* at = out + m * weight.outputs + column;
    Floats* parts = results.values[m];
    if (!GATED) {
      write<COLUMNS>(at, parts, weight.outputs - column);
      continue;
    }
    for (int p = 0; p < HALF; p++) parts[p] = mul(silu(parts[p]), parts[HALF + p]);
    write<HALF>(at, parts, weight.outputs - column);
  }
}

template <int M>
INLINE void multiply_rows(const Weight& weight, const Activations& tile, size_t begin, size_t end,
                          float* out) {
  for (size_t index = begin; index < end; index++)
    if (weight.gated)
      multiply_tile<M, true>(weight, tile, index, out);
    else
      multiply_tile<M, false>(weight, tile, index, out);
}

template <int M>
void multiply_or_fewer(const Weight& weight, const Activations& tile, size_t rows, size_t begin,
                       size_t end, float* out) {
  if constexpr (M > 0) {
    if (rows == M) return multiply_rows<M>(weight, tile, begin, end, out);
    multiply_or_fewer<M - 1>(weight, tile, rows, begin, end, out);
  }
}

void multiply(const Weight& weight, const Activations& tile, size_t rows, size_t begin, size_t end,
              float* out) {
  multiply_or_fewer<ROWS>(weight, tile, rows, begin, end, out);
}

// Quantizes one block of one row; `count` of its values exist, the others are 0.
INLINE void quantize_block(const float* x, size_t count, size_t block_size, size_t rows,
                           int32_t* quads, int32_t* start, float* scale) {
  float padded[MOST_BLOCK_SIZE];
  if (count < block_size) {
    memset(padded, 0, block_size * sizeof(float));
    memcpy(padded, x, count * sizeof(float));
    x = padded;
  }
  Floats peaks = broadcast(0.0f);
  for (size_t i = 0; i < block_size; i += WIDTH) peaks = max(peaks, abs(load(x + i)));
  const float most = peak(peaks);
  const bool is_zero = most < 1e-30f;  // and what a division by it would make infinite
  const Floats inverse = broadcast(is_zero ? 0.0f : 127.0f / most);
  Ints total = broadcast(int32_t(0));
  for (size_t i = 0; i < block_size; i += WIDTH) {
    const Ints rounded = to_ints(mul(load(x + i), inverse));
    total = add(total, rounded);
    int32_t bytes[WIDTH / 4];
    store_bytes(reinterpret_cast<int8_t*>(bytes), rounded);
#pragma unroll
    for (int quad = 0; quad < WIDTH / 4; quad++) quads[(i / 4 + quad) * rows] = bytes[quad];
  }
  *start = -8 * sum(total);
  *scale = is_zero ? 0.0f : most / 127.0f;
}

void quantize(const Weight& weight, const float* x, size_t rows, size_t begin, size_t end,
              const Activations& tile) {
  const size_t size = weight.block_size;
  for (size_t row = 0; row < rows; row++)
    for (size_t block = begin; block < end; block++) {
      const size_t at = block * rows + row, first = block * size;
      const size_t left = weight.inputs - first;
      quantize_block(x + row * weight.inputs + first, left < size ? left : size, size, rows,
                     tile.quads + first / 4 * rows + row, tile.starts + at, tile.scales + at);
    }
}

}  // namespace

const MatMulKernel MATMUL = {ROWS, quantize, multiply};

}  // namespace TANDEM_ISA
