// The tower's attention in float32 with matrix tiles: both products are those of bfloat16 pieces
// that tiles.h describes, the softmax between them is tower_attention.cpp's.
//
// Queries are columns in both products, so that scores and results lie in lanes of queries as the
// softmax wants them: scores = keys . queries, results = transposed values . weights.
#include "tower_attention_tiles.h"

#include <string.h>

#include "tiles.h"
#include "tower_attention_block.h"

namespace TANDEM_ISA {
namespace {

static_assert(LANES == SIDE && TILED_KEYS == SIDE && PIECE_STEP == SIDE);
constexpr size_t TILE = 4 * TILED_KEYS;  // keys looked at together
constexpr size_t MOST_STEPS = MOST_SIZE / PIECE_STEP;

uint8_t* keys_at(const TowerAttentionTiled& work, size_t head, size_t tile) {
  return work.keys + (head * work.key_tiles + tile) * work.steps * STEP_BYTES;
}

uint8_t* values_at(const TowerAttentionTiled& work, size_t head, size_t step, size_t tile) {
  return work.values + ((head * work.steps + step) * work.key_tiles + tile) * STEP_BYTES;
}

void prepare(const TowerAttentionTiled& work, const TowerTiledPart& tiled) {
  const TowerPart& part = tiled.part;
  const size_t size = work.base.size, width = work.base.heads * size;
  const size_t left = part.end - part.first, count = left < TILED_KEYS ? left : TILED_KEYS;
  const size_t tile = tiled.first_tile + (part.first - part.begin) / TILED_KEYS;
  alignas(64) float key[MOST_SIZE] = {};
  alignas(64) float values[MOST_SIZE][TILED_KEYS] = {};
  for (size_t row = 0; row < TILED_KEYS; row++) {
    if (row < count) {
      const float* from = work.base.joined + (part.first + row) * 3 * width + part.head * size;
      rotate(work.base, from + width, part.first + row, key);
      for (size_t d = 0; d < size; d++) values[d][row] = from[2 * width + d];
    } else {
      memset(key, 0, sizeof(key));
    }
    for (size_t step = 0; step < work.steps; step++)
      store_row(key + step * PIECE_STEP, row, keys_at(work, part.head, tile) + step * STEP_BYTES);
  }
  for (size_t d = 0; d < work.steps * PIECE_STEP; d++)
    store_row(values[d], d % PIECE_STEP, values_at(work, part.head, d / PIECE_STEP, tile));
}

// Lays out rows [rows, LANES] as a product's columns; `rows` are whole steps.
INLINE void store_columns(const float* x, size_t rows, uint8_t* columns) {
  for (size_t row = 0; row < rows; row += 2)
    for (size_t half = 0; half < 2; half++) {
      const float* from = x + row * LANES + half * WIDTH;
      store_pair(load(from), load(from + LANES), row % PIECE_STEP / 2, half,
                 columns + row / PIECE_STEP * STEP_BYTES);
    }
}

// What is kept of 32 queries while the keys pass.
struct Queries {
  Block<TILE> block;
  alignas(64) uint8_t columns[MOST_STEPS * STEP_BYTES];
  TowerPart part;
  size_t lanes;
};

// Looks at `count` keys from key tile `first` on.
INLINE void add_keys(const TowerAttentionTiled& work, size_t first, size_t count,
                     Queries& queries) {
  alignas(64) uint8_t weights[TILE / TILED_KEYS * STEP_BYTES];
  Block<TILE>& block = queries.block;
  const size_t head = queries.part.head;
  const size_t tiles = (count + TILED_KEYS - 1) / TILED_KEYS, whole = tiles * TILED_KEYS;
  for (size_t tile = 0; tile < tiles; tile++) {
    const uint8_t* keys = keys_at(work, head, first + tile);
    multiply_pieces(keys, queries.columns, work.steps, keys + 2 * work.steps * STEP_BYTES,
                    block.scores + tile * TILED_KEYS * LANES);
  }
  Floats faded[2];
  weigh(block, count, faded);
  memset(block.scores + count * LANES, 0, (whole - count) * LANES * sizeof(float));
  store_columns(block.scores, whole, weights);
  alignas(64) float made[SIDE * SIDE];
  for (size_t step = 0; step < work.steps; step++) {
    const uint8_t* values = values_at(work, head, step, first);
    multiply_pieces(values, weights, tiles, values + tiles * STEP_BYTES, made);
    float* sums = block.sums + step * PIECE_STEP * LANES;
    for (size_t i = 0; i < SIDE * LANES; i += LANES)
      for (size_t half = 0; half < 2; half++) {
        float* at = sums + i + half * WIDTH;
        store(at, fma(load(at), faded[half], load(made + i + half * WIDTH)));
      }
  }
}

INLINE void begin_queries(const TowerAttentionTiled& work, Queries& queries) {
  const size_t padded = work.steps * PIECE_STEP, size = work.base.size;
  Block<TILE>& block = queries.block;
  begin(work.base, queries.part, queries.lanes, block);
  memset(block.queries + size * LANES, 0, (padded - size) * LANES * sizeof(float));
  memset(block.sums, 0, padded * LANES * sizeof(float));
  store_columns(block.queries, padded, queries.columns);
}

void compute(const TowerAttentionTiled& work, const TowerTiledPart& tiled) {
  const TowerPart& part = tiled.part;
  Queries queries[TILED_QUERIES / LANES];
  size_t blocks = 0;
  for (size_t at = part.first; at < part.end && blocks < TILED_QUERIES / LANES; at += LANES) {
    Queries& made = queries[blocks++];
    made.part = {part.head, part.begin, part.end, at};
    made.lanes = part.end - at < LANES ? part.end - at : LANES;
    begin_queries(work, made);
  }
  begin_tiles();
  // A tile of keys and values comes from a far cache; all queries look at it while it is near.
  for (size_t key = part.begin; key < part.end; key += TILE) {
    const size_t count = part.end - key < TILE ? part.end - key : TILE;
    const size_t first = tiled.first_tile + (key - part.begin) / TILED_KEYS;
    for (size_t i = 0; i < blocks; i++) add_keys(work, first, count, queries[i]);
  }
  _tile_release();
  for (size_t i = 0; i < blocks; i++)
    finish(work.base, queries[i].part, queries[i].lanes, queries[i].block);
}

}  // namespace

const TowerAttentionTiledKernel TOWER_ATTENTION_TILED = {STEP_BYTES, prepare, compute};

}  // namespace TANDEM_ISA
