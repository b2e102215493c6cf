// The tower's attention with matrix tiles: both products are those of bfloat16 pieces that tiles.h
// describes. In float32 the softmax between them is tower_attention.cpp's. With one piece a number
// the softmax's weights have eight bits too, and an exponential of less; and what keys have in
// common, which no softmax sees, and what values have, which it passes on, is taken off before
// numbers are rounded (Zhang et al. 2024, SageAttention).
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

// What the softmax of one piece is made of: 2 to the power of x within 8e-5, half of what rounding
// to bfloat16 may lose at the very least. Coefficients: least largest relative error of a cubic.
INLINE Floats coarse_power(Floats x) {
  const Floats clipped = max(x, broadcast(-126.0f)), n = round(clipped), r = sub(clipped, n);
  Floats p = fma(broadcast(0.05517162f), r, broadcast(0.24261111f));
  p = fma(p, r, broadcast(0.69326097f));
  p = fma(p, r, broadcast(0.99992806f));
  return _mm512_scalef_ps(p, n);
}

template <size_t PIECES>
INLINE Floats weight_of(Floats x) {
  if constexpr (PIECES == EXACT) return exp(x);
  return coarse_power(x);
}

// What scores are multiplied with, so that `weight_of` them is the softmax's exponential.
template <size_t PIECES>
constexpr float UNIT = PIECES == EXACT ? 1.0f : 1.44269504f;

// Each array holds steps of 32 patches by 32 numbers of a head; see tower_attention_tiles.h.
template <size_t PIECES>
INLINE size_t place(const TowerAttentionTiled& work, size_t head, size_t tile, size_t step) {
  return ((head * work.key_tiles + tile) * work.steps + step) * STEP_BYTES<PIECES>;
}
template <size_t PIECES>
INLINE uint8_t* values_at(const TowerAttentionTiled& work, size_t head, size_t step, size_t tile) {
  return work.values + ((head * work.steps + step) * work.key_tiles + tile) * STEP_BYTES<PIECES>;
}

// Source: Intel 64 and IA-32 Architectures Optimization Reference Manual, 18.5.
INLINE void transpose(Ints (&rows)[16]) {
  Ints pairs[16], fours[16];
  for (size_t i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  for (size_t i = 0; i < 16; i += 4)
    for (size_t j = 0; j < 2; j++) {
      fours[i + 2 * j] = _mm512_unpacklo_epi64(pairs[i + j], pairs[i + 2 + j]);
      fours[i + 2 * j + 1] = _mm512_unpackhi_epi64(pairs[i + j], pairs[i + 2 + j]);
    }
  // fours[4 * i + j]: rows 4 * i to 4 * i + 3 of columns j, j + 4, j + 8, j + 12
  for (size_t j = 0; j < 4; j++) {
    const Ints low[2] = {_mm512_shuffle_i32x4(fours[j], fours[4 + j], 0x88),
                         _mm512_shuffle_i32x4(fours[j], fours[4 + j], 0xdd)};
    const Ints high[2] = {_mm512_shuffle_i32x4(fours[8 + j], fours[12 + j], 0x88),
                          _mm512_shuffle_i32x4(fours[8 + j], fours[12 + j], 0xdd)};
    for (size_t odd = 0; odd < 2; odd++) {
      rows[j + 4 * odd] = _mm512_shuffle_i32x4(low[odd], high[odd], 0x88);
      rows[j + 4 * odd + 8] = _mm512_shuffle_i32x4(low[odd], high[odd], 0xdd);
    }
  }
}

// A step of rows becomes one of columns, or the other way round: two numbers are one of 32 bits.
template <size_t PIECES>
INLINE void turn_step(uint8_t* step) {
  for (uint8_t* tile = step; tile < step + STEP_BYTES<PIECES>; tile += TILE_BYTES) {
    Ints rows[TILE_ROWS];
    for (size_t i = 0; i < TILE_ROWS; i++) rows[i] = load_bytes(tile + i * TILE_ROW_BYTES);
    transpose(rows);
    for (size_t i = 0; i < TILE_ROWS; i++) _mm512_store_si512(tile + i * TILE_ROW_BYTES, rows[i]);
  }
}

float* centre_of(const TowerAttentionTiled& work, const TowerTiledPart& tiled) {
  const size_t index = tiled.segment * work.base.heads + tiled.part.head;
  return work.centres + index * 2 * work.base.size;
}

// Means of keys and values over some patches of the segment: near the middle is good enough.
void find_centre(const TowerAttentionTiled& work, const TowerTiledPart& tiled) {
  constexpr size_t SAMPLES = 32;
  const TowerPart& part = tiled.part;
  const size_t size = work.base.size, width = work.base.heads * size;
  const size_t count = part.end - part.begin, samples = count < SAMPLES ? count : SAMPLES;
  float* centre = centre_of(work, tiled);
  memset(centre, 0, 2 * size * sizeof(float));
  alignas(64) float key[MOST_SIZE];
  for (size_t i = 0; i < samples; i++) {
    const size_t patch = part.begin + i * count / samples;
    const float* from = work.base.joined + patch * 3 * width + width + part.head * size;
    rotate(work.base, from, patch, key);
    for (size_t d = 0; d < size; d++) {
      centre[d] += key[d] / float(samples);
      centre[size + d] += from[width + d] / float(samples);
    }
  }
}

// The patches of a key tile, and which head.
struct Patches {
  const TowerAttention& work;
  size_t head, first, count;

  // Queries (0), keys (1) or values (2) of one of them.
  const float* row(size_t index, size_t kind) const {
    const size_t width = work.heads * work.size;
    return work.joined + (first + index) * 3 * width + kind * width + head * work.size;
  }
};

// Queries or keys, turned by their positions, less `centre` where there is one and multiplied with
// `scale`, as rows; where there is no patch, zeros.
template <size_t PIECES>
INLINE void lay_rows(const Patches& patches, size_t kind, const float* centre, float scale,
                     size_t steps, uint8_t* to) {
  alignas(64) float numbers[MOST_SIZE] = {};
  const size_t size = patches.work.size;
  for (size_t row = 0; row < TILED_KEYS; row++) {
    if (row < patches.count)
      rotate(patches.work, patches.row(row, kind), patches.first + row, numbers);
    else
      memset(numbers, 0, size * sizeof(float));
    if (centre != nullptr && row < patches.count)
      for (size_t d = 0; d < size; d++) numbers[d] -= centre[d];
    for (size_t d = 0; d < size; d++) numbers[d] *= scale;
    for (size_t step = 0; step < steps; step++)
      store_row<PIECES>(numbers + step * PIECE_STEP, row, to + step * STEP_BYTES<PIECES>);
  }
}

// Values, less `centre` where there is one, as columns: two patches in 32 bits, and the numbers of
// a head side by side.
template <size_t PIECES>
INLINE void lay_values(const TowerAttentionTiled& work, const Patches& patches,
                       const float* centre, size_t tile) {
  alignas(64) float pair[2][MOST_SIZE] = {};
  const size_t size = work.base.size;
  for (size_t row = 0; row < TILED_KEYS; row++) {
    if (row < patches.count)
      memcpy(pair[row % 2], patches.row(row, 2), size * sizeof(float));
    else
      memset(pair[row % 2], 0, size * sizeof(float));
    if (centre != nullptr && row < patches.count)
      for (size_t d = 0; d < size; d++) pair[row % 2][d] -= centre[d];
    if (row % 2 == 0) continue;
    for (size_t d = 0; d < work.steps * PIECE_STEP; d += WIDTH)
      store_pair<PIECES>(load(pair[0] + d), load(pair[1] + d), row / 2, d / WIDTH % 2,
                         values_at<PIECES>(work, patches.head, d / PIECE_STEP, tile));
  }
}

template <size_t PIECES>
void prepare(const TowerAttentionTiled& work, const TowerTiledPart& tiled) {
  const TowerPart& part = tiled.part;
  const size_t left = part.end - part.first, count = left < TILED_KEYS ? left : TILED_KEYS;
  const size_t tile = tiled.first_tile + (part.first - part.begin) / TILED_KEYS;
  const size_t at = place<PIECES>(work, part.head, tile, 0);
  const Patches patches = {work.base, part.head, part.first, count};
  const float scale = UNIT<PIECES> / __builtin_sqrtf(float(work.base.size));
  const float* centre = PIECES == COARSE ? centre_of(work, tiled) : nullptr;
  const float* values_centre = PIECES == COARSE ? centre + work.base.size : nullptr;
  lay_rows<PIECES>(patches, 0, nullptr, scale, work.steps, work.queries + at);
  lay_rows<PIECES>(patches, 1, centre, 1.0f, work.steps, work.keys + at);
  lay_values<PIECES>(work, patches, values_centre, tile);
  for (size_t step = 0; step < work.steps; step++) {
    turn_step<PIECES>(work.queries + at + step * STEP_BYTES<PIECES>);
    turn_step<PIECES>(values_at<PIECES>(work, part.head, step, tile));
  }
}

// What is kept of 32 queries while the keys pass.
struct Queries {
  alignas(64) float sums[MOST_SIZE * LANES];  // [head steps * 32, LANES], of weighted values
  Floats highest[2], totals[2];
  const uint8_t* columns;
};

// Turns the scores [count, LANES] of a tile into weights, laid out as a product's columns with zeros
// up to a whole key tile; returns what earlier sums are to be multiplied with.
template <size_t PIECES>
INLINE void weigh(const float* all, size_t count, Queries& queries, Floats (&faded)[2],
                  uint8_t* weights) {
  for (size_t half = 0; half < 2; half++) {
    const float* scores = all + half * WIDTH;
    const auto score = [&](size_t t) { return load(scores + t * LANES); };
    Floats peaks[2] = {queries.highest[half], score(count - 1)};
    for (size_t t = 0; t + 1 < count; t += 2) {
      peaks[0] = max(peaks[0], score(t));
      peaks[1] = max(peaks[1], score(t + 1));
    }
    const Floats highest = max(peaks[0], peaks[1]);
    faded[half] = weight_of<PIECES>(sub(queries.highest[half], highest));
    Floats total = mul(queries.totals[half], faded[half]);
    const auto put = [&](size_t t, Floats even, Floats odd) {
      store_pair<PIECES>(even, odd, t % PIECE_STEP / 2, half,
                         weights + t / PIECE_STEP * STEP_BYTES<PIECES>);
    };
    size_t t = 0;
    for (; t + 1 < count; t += 2) {
      const Floats even = weight_of<PIECES>(sub(score(t), highest));
      const Floats odd = weight_of<PIECES>(sub(score(t + 1), highest));
      total = add(add(total, even), odd);
      put(t, even, odd);
    }
    const Floats zero = broadcast(0.0f);
    if (t < count) {
      const Floats even = weight_of<PIECES>(sub(score(t), highest));
      total = add(total, even);
      put(t, even, zero);
      t += 2;
    }
    for (; t % TILED_KEYS != 0; t += 2) put(t, zero, zero);
    queries.highest[half] = highest;
    queries.totals[half] = total;
  }
}

// Looks at `count` keys from key tile `first` on.
template <size_t PIECES>
INLINE void add_keys(const TowerAttentionTiled& work, size_t head, size_t first, size_t count,
                     Queries& queries) {
  alignas(64) float scores[TILE * LANES], made[SIDE * LANES];
  alignas(64) uint8_t weights[TILE / TILED_KEYS * STEP_BYTES<PIECES>];
  const size_t tiles = (count + TILED_KEYS - 1) / TILED_KEYS;
  const size_t bytes = work.steps * STEP_BYTES<PIECES>;
  const uint8_t* keys = work.keys + place<PIECES>(work, head, first, 0);
  for (size_t tile = 0; tile < tiles; tile++, keys += bytes)
    multiply_pieces<PIECES>(keys, queries.columns, work.steps, keys + 2 * bytes,
                            scores + tile * TILED_KEYS * LANES);
  Floats faded[2];
  weigh<PIECES>(scores, count, queries, faded, weights);
  for (size_t step = 0; step < work.steps; step++) {
    const uint8_t* values = values_at<PIECES>(work, head, step, first);
    multiply_pieces<PIECES>(values, weights, tiles, values + tiles * STEP_BYTES<PIECES>, made);
    float* sums = queries.sums + step * PIECE_STEP * LANES;
    for (size_t i = 0; i < SIDE * LANES; i += LANES)
      for (size_t half = 0; half < 2; half++) {
        float* at = sums + i + half * WIDTH;
        store(at, fma(load(at), faded[half], load(made + i + half * WIDTH)));
      }
  }
}

// Writes the results of `count` queries from patch `first` on, and adds `centre` [size] to them
// where there is one.
INLINE void finish(const TowerAttentionTiled& work, size_t head, size_t first, size_t count,
                   const float* centre, const Queries& queries) {
  const size_t size = work.base.size, width = work.base.heads * size;
  for (size_t half = 0; half < 2; half++) {
    const Floats inverse = div(broadcast(1.0f), queries.totals[half]);
    for (size_t d = 0; d < size; d += TILE_ROWS) {
      Ints rows[TILE_ROWS];
      for (size_t i = 0; i < TILE_ROWS; i++) {
        const Floats sums = load(queries.sums + (d + i) * LANES + half * WIDTH);
        const bool is_centred = centre != nullptr && d + i < size;
        const Floats middle = broadcast(is_centred ? centre[d + i] : 0.0f);
        rows[i] = _mm512_castps_si512(fma(sums, inverse, middle));
      }
      transpose(rows);
      const __mmask16 mask = size - d < TILE_ROWS ? (1u << (size - d)) - 1 : 0xffff;
      float* out = work.base.out + (first + half * WIDTH) * width + head * size + d;
      for (size_t i = 0; i < TILE_ROWS && half * WIDTH + i < count; i++, out += width)
        _mm512_mask_storeu_epi32(out, mask, rows[i]);
    }
  }
}

template <size_t PIECES>
void compute(const TowerAttentionTiled& work, const TowerTiledPart& tiled) {
  const TowerPart& part = tiled.part;
  const auto tile_of = [&](size_t patch) {
    return tiled.first_tile + (patch - part.begin) / TILED_KEYS;
  };
  Queries queries[TILED_QUERIES / LANES];
  const size_t left = part.end - part.first, count = left < TILED_QUERIES ? left : TILED_QUERIES;
  for (size_t at = 0; at < count; at += LANES) {
    Queries& made = queries[at / LANES];
    memset(made.sums, 0, work.steps * PIECE_STEP * LANES * sizeof(float));
    made.columns = work.queries + place<PIECES>(work, part.head, tile_of(part.first + at), 0);
    for (size_t half = 0; half < 2; half++) {
      made.highest[half] = broadcast(LOWEST);
      made.totals[half] = broadcast(0.0f);
    }
  }
  begin_tiles();
  // A tile of keys and values comes from a far cache; all queries look at it while it is near.
  for (size_t key = part.begin; key < part.end; key += TILE) {
    const size_t keys = part.end - key < TILE ? part.end - key : TILE;
    for (size_t at = 0; at < count; at += LANES)
      add_keys<PIECES>(work, part.head, tile_of(key), keys, queries[at / LANES]);
  }
  _tile_release();
  const float* centre = PIECES == COARSE ? centre_of(work, tiled) + work.base.size : nullptr;
  for (size_t at = 0; at < count; at += LANES)
    finish(work, part.head, part.first + at, count - at < LANES ? count - at : LANES, centre,
           queries[at / LANES]);
}

}  // namespace

const TowerAttentionTiledKernel TOWER_ATTENTION_TILED = {STEP_BYTES<EXACT>, nullptr, prepare<EXACT>,
                                                         compute<EXACT>};
const TowerAttentionTiledKernel TOWER_ATTENTION_COARSE = {STEP_BYTES<COARSE>, find_centre, prepare<COARSE>,
                                                          compute<COARSE>};

}  // namespace TANDEM_ISA
