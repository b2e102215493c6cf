// Matrix tiles (AMX), and products of float32 numbers with them.
//
// The tiles multiply bfloat16, 16 times as many a second as AVX-512 multiplies float32. A float32
// number is the exact sum of three bfloat16 ones of 8 bits each. Of the nine products of two such
// sums six are added here, in float32; those left out are below 2^-25 of the whole, half of what
// rounding one float32 product loses. So the result is as exact as a float32 product's, in 3/8 of
// its time. Two pieces and three products would be twice as fast again and lose 2^-18. One piece
// and one product lose 2^-9 of each number, and are six times as fast.
//
// Source: Henry, Tang, Heinecke 2019, Leveraging the bfloat16 Artificial Intelligence Datatype For
// Higher-Precision Computations.
#pragma once
#if defined(__AMX_INT8__)
#include "simd.h"

namespace TANDEM_ISA {

constexpr size_t TILE_ROWS = 16;
constexpr size_t TILE_ROW_BYTES = 64;
constexpr size_t TILE_BYTES = TILE_ROWS * TILE_ROW_BYTES;

// Source: Intel Architecture Instruction Set Extensions Programming Reference, chapter 3.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Makes all eight tiles whole ones; `_tile_release` ends it.
INLINE void begin_tiles() {
  const TileConfig config;
  _tile_loadconfig(&config);
}

// ---------------------------------------------------------------------------------------------
// Float32 in pieces

constexpr size_t EXACT = 3, COARSE = 1;  // pieces of a number
constexpr size_t PIECE_STEP = 32;  // numbers of a row of bfloat16
constexpr size_t PAIR_BYTES = 2 * TILE_BYTES;
// One step of 32 rows, or of 32 columns: [piece][half][16][64].
template <size_t PIECES>
constexpr size_t STEP_BYTES = PIECES * PAIR_BYTES;
template <size_t PIECES>
constexpr size_t PRODUCTS = PIECES * (PIECES + 1) / 2;
template <size_t PIECES>
constexpr size_t AHEAD_BYTES = STEP_BYTES<PIECES> / 4;  // of a step
constexpr size_t LINE_BYTES = 64;
constexpr size_t SIDE = 2 * TILE_ROWS;  // rows and columns of the sums that are computed together

// Bfloat16 numbers in the upper halves of 32 bits; the lower halves are 0.
template <size_t PIECES>
struct Pieces {
  Ints parts[PIECES];  // highest first
};

template <size_t PIECES>
INLINE Pieces<PIECES> pieces_of(Floats x) {
  const Ints half = broadcast(int32_t(0x8000)), mask = broadcast(int32_t(0xffff0000));
  const auto upper = [&](Floats y) {
    return _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(y), half), mask);
  };
  const Ints high = upper(x);
  if constexpr (PIECES == COARSE) {
    return {{high}};
  } else {
    const Floats rest = sub(x, _mm512_castsi512_ps(high));
    const Ints middle = upper(rest);
    // What is left has 8 bits, so it needs no rounding; and what is no number stays none.
    return {{high, middle, _mm512_castps_si512(sub(rest, _mm512_castsi512_ps(middle)))}};
  }
}

// Writes 32 numbers of row `row` of 32 to a step.
template <size_t PIECES>
INLINE void store_row(const float* x, size_t row, uint8_t* step) {
  const auto low = pieces_of<PIECES>(load(x)), high = pieces_of<PIECES>(load(x + WIDTH));
  uint8_t* to = step + row / TILE_ROWS * TILE_BYTES + row % TILE_ROWS * TILE_ROW_BYTES;
#pragma unroll
  for (size_t i = 0; i < PIECES; i++) {
    const auto words = [](Ints x) { return _mm512_cvtepi32_epi16(_mm512_srli_epi32(x, 16)); };
    _mm256_store_si256(reinterpret_cast<__m256i*>(to + i * PAIR_BYTES), words(low.parts[i]));
    _mm256_store_si256(reinterpret_cast<__m256i*>(to + i * PAIR_BYTES) + 1, words(high.parts[i]));
  }
}

// Writes inputs 2 * pair and 2 * pair + 1 of 16 columns, half `half` of a step's.
template <size_t PIECES>
INLINE void store_pair(Floats even, Floats odd, size_t pair, size_t half, uint8_t* step) {
  const auto low = pieces_of<PIECES>(even), high = pieces_of<PIECES>(odd);
  uint8_t* to = step + half * TILE_BYTES + pair * TILE_ROW_BYTES;
#pragma unroll
  for (size_t i = 0; i < PIECES; i++) {
    const Ints joined = _mm512_or_si512(_mm512_srli_epi32(low.parts[i], 16), high.parts[i]);
    _mm512_store_si512(to + i * PAIR_BYTES, joined);
  }
}

// Tiles 0 to 3 hold sums [2][2] of 32 rows and 32 columns; 4 and 5 the rows', 6 and 7 the columns'.
INLINE void load_rows(const uint8_t* step, size_t piece) {
  _tile_loadd(4, step + piece * PAIR_BYTES, TILE_ROW_BYTES);
  _tile_loadd(5, step + piece * PAIR_BYTES + TILE_BYTES, TILE_ROW_BYTES);
}
INLINE void load_columns(const uint8_t* step, size_t piece) {
  _tile_loadd(6, step + piece * PAIR_BYTES, TILE_ROW_BYTES);
  _tile_loadd(7, step + piece * PAIR_BYTES + TILE_BYTES, TILE_ROW_BYTES);
}
// `ahead`: what is read next, asked for while the tiles multiply.
template <size_t PIECES>
INLINE void add_products(const uint8_t*& ahead) {
  constexpr size_t LINES = AHEAD_BYTES<PIECES> / PRODUCTS<PIECES> / LINE_BYTES;
#pragma unroll
  for (size_t line = 0; line < LINES; line++, ahead += LINE_BYTES)
    _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T1);
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

// sums [32, 32] = rows . columns over `steps` steps; small products before the larger ones. Only
// one operand changes from one product to the next. AHEAD_BYTES a step are asked for from `ahead`
// on: without this a product over rows in the third cache takes half as long again.
template <size_t PIECES>
INLINE void multiply_pieces(const uint8_t* rows, const uint8_t* columns, size_t steps,
                            const uint8_t* ahead, float* sums) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (size_t step = 0; step < steps; step++) {
    load_columns(columns, 0);
    if constexpr (PIECES == EXACT) {
      load_rows(rows, 2);
      add_products<PIECES>(ahead);
      load_rows(rows, 1);
      add_products<PIECES>(ahead);
      load_columns(columns, 1);
      add_products<PIECES>(ahead);
      load_rows(rows, 0);
      add_products<PIECES>(ahead);
      load_columns(columns, 2);
      add_products<PIECES>(ahead);
      load_columns(columns, 0);
    } else {
      load_rows(rows, 0);
    }
    add_products<PIECES>(ahead);
    rows += STEP_BYTES<PIECES>;
    columns += STEP_BYTES<PIECES>;
  }
  constexpr size_t STRIDE = SIDE * sizeof(float);
  _tile_stored(0, sums, STRIDE);
  _tile_stored(1, sums + WIDTH, STRIDE);
  _tile_stored(2, sums + TILE_ROWS * SIDE, STRIDE);
  _tile_stored(3, sums + TILE_ROWS * SIDE + WIDTH, STRIDE);
}

}  // namespace TANDEM_ISA
#endif
