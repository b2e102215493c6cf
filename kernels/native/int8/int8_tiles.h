// How matrix tiles (AMX) multiply rows of bytes with weights of bytes, and what else the processor
// does meanwhile.
//
// Tiles multiply 16,384 bytes in 16 cycles, which is less time than what surrounds a product takes:
// so the rows of one tile of sums are finished while the next one's are multiplied. Weights are
// taken in blocks of 16 KiB, which stay in the first cache while the rows pass; where they come
// from a far cache, the next block is asked for meanwhile.
#pragma once
#include "around.h"
#include "int8.h"
#include "matmul_int8.h"
#include "tiles.h"

namespace TANDEM_ISA {

constexpr size_t ROWS = SIDE;              // two tiles of rows by two of weights
constexpr size_t STEP = ROWS * INT8_STEP;  // bytes of a step, of rows as of weights
constexpr size_t DEPTH = 8;                // steps of a block
constexpr size_t BATCH = 16;               // row tiles that share a block of weights
static_assert(STEP == TILE_ROWS * INT8_STRIDE && INT8_LANES == SIDE);

using Sums = int32_t[ROWS * INT8_LANES];

INLINE size_t least(size_t x, size_t y) { return x < y ? x : y; }

// What `packed` leaves in fours of each register, in the registers' order.
INLINE Ints in_order(Ints bytes) {
  return _mm512_permutexvar_epi32(
      _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), bytes);
}

// What is done beside products: work(i) for every i < count, an equal share with each of `shares`
// calls until all is done.
class Spread {
 public:
  INLINE Spread(size_t count, size_t shares)
      : next_(0), count_(count), each_((count + shares - 1) / shares) {}

  template <class Work>
  INLINE void share(Work work) {
    const size_t end = next_ + each_ < count_ ? next_ + each_ : count_;
    for (; next_ < end; next_++) work(next_);
  }

 private:
  size_t next_, count_, each_;
};

INLINE void zero_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}
INLINE void load_sums(const int32_t* sums) {
  _tile_loadd(0, sums, INT8_STRIDE);
  _tile_loadd(1, sums + WIDTH, INT8_STRIDE);
  _tile_loadd(2, sums + TILE_ROWS * INT8_LANES, INT8_STRIDE);
  _tile_loadd(3, sums + TILE_ROWS * INT8_LANES + WIDTH, INT8_STRIDE);
}
INLINE void store_sums(int32_t* sums) {
  _tile_stored(0, sums, INT8_STRIDE);
  _tile_stored(1, sums + WIDTH, INT8_STRIDE);
  _tile_stored(2, sums + TILE_ROWS * INT8_LANES, INT8_STRIDE);
  _tile_stored(3, sums + TILE_ROWS * INT8_LANES + WIDTH, INT8_STRIDE);
}

// Adds the products of `steps` steps of a row tile and a weight tile; calls aside() with each.
template <class Aside>
INLINE void multiply_steps(const uint8_t* rows, const int8_t* values, size_t steps, Aside aside) {
  for (size_t step = 0; step < steps; step++, rows += STEP, values += STEP) {
    _tile_loadd(6, values, INT8_STRIDE);
    _tile_loadd(4, rows, TILE_ROW_BYTES);
    _tile_dpbusd(0, 4, 6);
    _tile_loadd(7, values + INT8_STRIDE / 2, INT8_STRIDE);
    _tile_dpbusd(1, 4, 7);
    _tile_loadd(5, rows + TILE_BYTES, TILE_ROW_BYTES);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
    aside();
  }
}

// Asks for weights that are multiplied next, a few lines at a time.
struct Ahead {
  const int8_t* next;
  size_t bytes;  // a time

  INLINE Ahead(const int8_t* from, size_t tiles)
      : next(from), bytes(divided_lines(STEP, tiles) * LINE_BYTES) {}
  INLINE void ask() {
    for (size_t i = 0; i < bytes; i += LINE_BYTES)
      _mm_prefetch(reinterpret_cast<const char*>(next + i), _MM_HINT_T1);
    next += bytes;
  }

 private:
  static INLINE size_t divided_lines(size_t all, size_t tiles) {
    return (all / LINE_BYTES + tiles - 1) / tiles;
  }
};

// Sums of up to BATCH row tiles with the weight tiles from `begin` to `end`. prepare(index) is
// called before rows of a weight tile are finished, and finish(sums, row) once for each of its
// rows, while the next weight tile's products are made.
template <class Prepare, class Finish>
INLINE void multiply_batch(const Int8Weight& weight, const uint8_t* bytes, size_t tiles,
                           size_t begin, size_t end, Prepare prepare, Finish finish) {
  alignas(64) Sums sums[2][BATCH];
  const size_t steps = weight.padded / INT8_STEP;
  for (size_t index = begin; index < end; index++) {
    const int8_t* values = weight.values + index * weight.padded * INT8_LANES;
    const Sums* before = sums[(index + 1) % 2];
    Ahead ahead(values + weight.padded * INT8_LANES, tiles);
    if (index > begin) prepare(index - 1);
    Spread spread(index > begin ? tiles * ROWS : 0, tiles * steps);
    for (size_t first = 0; first < steps; first += DEPTH)
      for (size_t tile = 0; tile < tiles; tile++) {
        int32_t* made = sums[index % 2][tile];
        if (first == 0)
          zero_sums();
        else
          load_sums(made);
        const uint8_t* rows = bytes + tile * ROWS * weight.padded + first * STEP;
        const auto aside = [&]() __attribute__((always_inline)) {
          ahead.ask();
          spread.share([&](size_t row) __attribute__((always_inline)) {
            finish(before[0] + row * INT8_LANES, row);
          });
        };
        multiply_steps(rows, values + first * STEP, least(DEPTH, steps - first), aside);
        store_sums(made);
      }
  }
  prepare(end - 1);
  for (size_t row = 0; row < tiles * ROWS; row++)
    finish(sums[(end - 1) % 2][0] + row * INT8_LANES, row);
}

// What a weight tile's sums are finished with.
struct Columns {
  Ints starts[2];
  Floats totals[2], gains[2], biases[2];
  __mmask16 exist[2];  // of the outputs

  INLINE void read(const Int8Weight& weight, size_t index) {
    const size_t left = weight.outputs - index * INT8_LANES;
    const uint32_t mask = left < INT8_LANES ? (uint32_t(1) << left) - 1 : ~uint32_t(0);
    for (size_t j = 0; j < 2; j++) {
      const size_t at = index * INT8_LANES + j * WIDTH;
      starts[j] = start_of(load_ints(weight.sums + at));
      totals[j] = to_floats(load_ints(weight.sums + at));
      gains[j] = load(weight.scales + at);
      biases[j] = load(weight.biases + at);
      exist[j] = mask >> (j * WIDTH);
    }
  }
};

}  // namespace TANDEM_ISA
