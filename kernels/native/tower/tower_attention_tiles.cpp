// The tower's attention with matrix tiles: both products are those of bfloat16 pieces that tiles.h
// describes. In float32 the softmax between them is tower_attention.cpp's. With one piece a number
// the softmax's weights have eight bits too, and an exponential of little more; and what keys have
// in common, which no softmax sees, and what values have, which it passes on, is taken off before
// numbers are rounded (Zhang et al. 2024, SageAttention).
//
// Tiles multiply while the vector units make weights of scores: each turn below has a few tile
// products of the keys to come or of the keys before, and the exponentials of a few rows. One after
// another they would take half as long again.
//
// No maxima follow the keys: a softmax is the same whatever its scores are measured from, and
// float32 and bfloat16 have room for 2 to the power of 100 in either direction. The exact form
// measures from the highest score of the first keys, the coarse one, whose keys are centred, from
// 0; where a total shows that this was too far away, those queries are computed again, from their
// highest scores.
#include "tower_attention_tiles.h"

#include "tower_attention_laid.h"

namespace TANDEM_ISA {
namespace {

constexpr size_t KEY_TILES = 2;                  // looked at together
constexpr size_t BLOCKS = TILED_QUERIES / SIDE;  // of queries, of a part
constexpr size_t SCORES = SIDE * SIDE;           // of a block with a key tile

// The range of totals that measured their scores from near enough. Exact: a score is rounded to
// 2^-24 of its distance, and e^16.6 of them tell of one at 16.6 at most.
template <size_t PIECES>
constexpr float LEAST_TOTAL = PIECES == EXACT ? 0x1p-24f : 0x1p-60f;
template <size_t PIECES>
constexpr float MOST_TOTAL = PIECES == EXACT ? 0x1p24f : 0x1p100f;

// What is kept of 32 queries while the keys pass.
struct Queries {
  alignas(64) float sums[MOST_SIZE * SIDE];  // [head steps, 32, 32], of weighted values
  alignas(64) float totals[SIDE * WIDTH];    // of weights; a row's sum is the query's
  float origins[SIDE];                       // what scores are measured from
  const uint8_t* rows;
};

// 2 to the power of x within 8e-5, half of what rounding to bfloat16 may lose at the least.
// Coefficients: least largest relative error of a cubic on [0, 1].
INLINE Floats coarse_power(Floats x) {
  const Floats r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  Floats p = fma(broadcast(0.07802452f), r, broadcast(0.22606718f));
  p = fma(p, r, broadcast(0.69583352f));
  p = fma(p, r, broadcast(0.99992522f));
  return _mm512_scalef_ps(p, x);  // by the power of x rounded down
}

template <size_t PIECES>
INLINE Floats weight_of(Floats x) {
  if constexpr (PIECES == EXACT) return exp(x);
  return coarse_power(x);
}

// The lanes of a register of keys from `first` on that are among the first `count`.
INLINE __mmask16 lanes_of(size_t first, size_t count) {
  if (first + WIDTH <= count) return 0xffff;
  return first < count ? (1u << (count - first)) - 1 : 0;
}

// Writes a query's weights of 32 keys as row `row` of a step.
template <size_t PIECES>
INLINE void store_weights(Floats low, Floats high, size_t row, uint8_t* step) {
  uint8_t* to = step + row * TILE_ROW_BYTES;
  const auto put = [](uint8_t* at, Floats even, Floats odd) {
    _mm512_store_si512(at, reinterpret_cast<Ints>(_mm512_cvtne2ps_pbh(odd, even)));
  };
  if constexpr (PIECES == COARSE) {
    put(to, low, high);
  } else {
    const auto lows = pieces_of<PIECES>(low), highs = pieces_of<PIECES>(high);
    for (size_t i = 0; i < PIECES; i++)
      put(to + i * PAIR_BYTES, _mm512_castsi512_ps(lows.parts[i]),
          _mm512_castsi512_ps(highs.parts[i]));
  }
}

// Makes weights of the scores of one query with `count` keys; where there is no key, zeros.
template <size_t PIECES, bool IS_SHIFTED, bool IS_WHOLE>
INLINE void weigh(const float* scores, size_t count, size_t row, Queries& queries,
                  uint8_t* weights) {
  const Floats origin = broadcast(queries.origins[row]);
  Floats total = load(queries.totals + row * WIDTH);
#pragma unroll
  for (size_t tile = 0; tile < KEY_TILES; tile++) {
    if (!IS_WHOLE && tile * SIDE >= count) break;
    Floats made[2];
#pragma unroll
    for (size_t half = 0; half < 2; half++) {
      Floats x = load(scores + tile * SCORES + row * SIDE + half * WIDTH);
      if constexpr (IS_SHIFTED) x = sub(x, origin);
      made[half] = weight_of<PIECES>(x);
      if constexpr (!IS_WHOLE)
        made[half] = _mm512_maskz_mov_ps(lanes_of(tile * SIDE + half * WIDTH, count), made[half]);
    }
    total = add(total, add(made[0], made[1]));
    store_weights<PIECES>(made[0], made[1], row, weights + tile * STEP_BYTES<PIECES>);
  }
  store(queries.totals + row * WIDTH, total);
}

// ---------------------------------------------------------------------------------------------
// Products

// A step's products are shared out in turns: exact, each of the six, whose four tiles do not wait
// for each other; coarse, halves of the only one, 16 rows each with tiles 0 and 1 or 2 and 3.
template <size_t PIECES>
constexpr size_t SHARES = PIECES == EXACT ? PRODUCTS<EXACT> : 2;

// Adds a share of a step of rows times a step of columns to the tiles' sums; small products first.
template <size_t SHARE>
INLINE void add_product(const uint8_t* rows, const uint8_t* columns) {
  constexpr size_t ROWS_PIECE[] = {2, 1, 1, 0, 0, 0}, COLUMNS_PIECE[] = {0, 0, 1, 1, 2, 0};
  constexpr size_t BEFORE = SHARE == 0 ? 0 : SHARE - 1;
  if (SHARE == 0 || COLUMNS_PIECE[SHARE] != COLUMNS_PIECE[BEFORE])
    load_columns(columns, COLUMNS_PIECE[SHARE]);
  if (SHARE == 0 || ROWS_PIECE[SHARE] != ROWS_PIECE[BEFORE]) load_rows(rows, ROWS_PIECE[SHARE]);
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}
template <size_t HALF>
INLINE void add_half(const uint8_t* rows, const uint8_t* columns) {
  if (HALF == 0) load_columns(columns, 0);
  _tile_loadd(4 + HALF, rows + HALF * TILE_BYTES, TILE_ROW_BYTES);
  _tile_dpbf16ps(2 * HALF, 4 + HALF, 6);
  _tile_dpbf16ps(2 * HALF + 1, 4 + HALF, 7);
}
template <size_t PIECES, size_t SHARE>
INLINE void add_share(const uint8_t* rows, const uint8_t* columns) {
  if constexpr (PIECES == EXACT)
    add_product<SHARE>(rows, columns);
  else
    add_half<SHARE>(rows, columns);
}

// Half of the tiles' sums [32, 32] goes to memory, or comes from it.
template <size_t HALF>
INLINE void store_half_sums(float* sums) {
  constexpr size_t STRIDE = SIDE * sizeof(float);
  _tile_stored(2 * HALF, sums + HALF * TILE_ROWS * SIDE, STRIDE);
  _tile_stored(2 * HALF + 1, sums + HALF * TILE_ROWS * SIDE + WIDTH, STRIDE);
}
template <size_t HALF>
INLINE void load_half_sums(const float* sums) {
  constexpr size_t STRIDE = SIDE * sizeof(float);
  _tile_loadd(2 * HALF, sums + HALF * TILE_ROWS * SIDE, STRIDE);
  _tile_loadd(2 * HALF + 1, sums + HALF * TILE_ROWS * SIDE + WIDTH, STRIDE);
}

// ---------------------------------------------------------------------------------------------
// A part

// The numbers of turns as constants, so that a turn's place is known when it is compiled.
template <size_t... TURN>
struct Turns {};
template <typename, size_t... TURN>
using TurnsOf = Turns<TURN...>;
template <size_t COUNT>
using AllTurns = __make_integer_seq<TurnsOf, size_t, COUNT>;

template <size_t PIECES, size_t STEPS>
class Part {
 public:
  Part(const TowerAttentionTiled& work, const TowerTiledPart& tiled)
      : work_(work), tiled_(tiled), keys_(tiled.part.end - tiled.part.begin) {
    const size_t left = tiled.part.end - tiled.part.first;
    queries_ = left < TILED_QUERIES ? left : TILED_QUERIES;
    key_blocks_ = (keys_ + KEYS - 1) / KEYS;
    const size_t first = (tiled.part.first - tiled.part.begin) / TILED_KEYS;
    for (size_t block = 0; block < blocks(); block++) {
      const size_t tile = tiled.first_tile + first + block;
      made_[block].rows = work.queries + place<PIECES>(work, tiled.part.head, tile);
    }
  }

  void compute() {
    attend<PIECES == EXACT>(0, blocks(), PIECES == EXACT);
    for (size_t block = 0; block < blocks(); block++) {
      if (is_near(block)) continue;
      find_origins(block);
      attend<true>(block, 1, false);
    }
    for (size_t block = 0; block < blocks(); block++) finish(block);
  }

 private:
  static constexpr size_t KEYS = KEY_TILES * SIDE;  // looked at together
  static constexpr size_t STEP = STEP_BYTES<PIECES>;
  static constexpr size_t TURNS = SHARES<PIECES> * STEPS * KEY_TILES;  // of a block's product

  // A block of queries, and some keys.
  struct Item {
    Queries* queries;
    const uint8_t *keys, *values;
    size_t rows, count;  // of queries and of keys that exist
  };

  size_t blocks() const { return (queries_ + SIDE - 1) / SIDE; }
  size_t rows_of(size_t block) const {
    const size_t left = queries_ - block * SIDE;
    return left < SIDE ? left : SIDE;
  }

  Item item_of(size_t block, size_t key_block) {
    const size_t tile = tiled_.first_tile + key_block * KEY_TILES;
    return {&made_[block], work_.keys + place<PIECES>(work_, tiled_.part.head, tile),
            values_at<PIECES>(work_, tiled_.part.head, 0, tile), rows_of(block),
            keys_ - key_block * KEYS};
  }

  // Keys and values of the exact form fill the second cache, so all queries look at some of them
  // before the next ones; those of the coarse form do not, and few sums stay in the first cache.
  Item item_at(size_t index, size_t first_block, size_t count) {
    if constexpr (PIECES == EXACT) return item_of(first_block + index % count, index / count);
    return item_of(first_block + index / key_blocks_, index % key_blocks_);
  }

  // Measures a block's scores from the highest ones of its first key tile, or of all.
  void measure_first(const Item& item, const float* scores) {
    for (size_t row = 0; row < item.rows; row++)
      item.queries->origins[row] = peak(highest_of(scores + row * SIDE, item.count));
  }
  void find_origins(size_t block) {
    for (size_t row = 0; row < SIDE; row++) made_[block].origins[row] = LOWEST;
    for (size_t key_block = 0; key_block < key_blocks_; key_block++) {
      const Item item = item_of(block, key_block);
      score_all(item);
      for (size_t row = 0; row < item.rows; row++)
        for (size_t tile = 0; tile < KEY_TILES && tile * SIDE < item.count; tile++) {
          const float* scores = scores_[0] + tile * SCORES + row * SIDE;
          const float found = peak(highest_of(scores, item.count - tile * SIDE));
          float& origin = made_[block].origins[row];
          origin = found > origin ? found : origin;
        }
    }
  }
  // Of the scores of a query with a key tile, `count` of whose keys exist.
  INLINE static Floats highest_of(const float* scores, size_t count) {
    const Floats lowest = broadcast(LOWEST);
    return max(_mm512_mask_mov_ps(lowest, lanes_of(0, count), load(scores)),
               _mm512_mask_mov_ps(lowest, lanes_of(WIDTH, count), load(scores + WIDTH)));
  }

  // Sums up the weighted values of `count` blocks from `first` on.
  template <bool IS_SHIFTED>
  void attend(size_t first, size_t count, bool is_measured) {
    for (size_t block = first; block < first + count; block++) {
      memset(made_[block].sums, 0, STEPS * SCORES * sizeof(float));
      memset(made_[block].totals, 0, sizeof(made_[block].totals));
    }
    const size_t items = count * key_blocks_;
    Item now = item_at(0, first, count), last = now;
    score_all(now);
    stored_ = spare_;
    for (size_t index = 0; index < items; index++) {
      const bool is_last = index + 1 == items;
      const Item next = is_last ? now : item_at(index + 1, first, count);
      const Neighbours around = {index == 0 ? nullptr : &last, is_last ? nullptr : &next};
      if (is_measured && index < count) measure_first(now, scores_[index % 2]);
      if (now.count >= KEYS)
        overlap<IS_SHIFTED, true>(around, now, index % 2);
      else
        overlap<IS_SHIFTED, false>(around, now, index % 2);
      if (index == 0) store_sums();  // no gathering has stored the last scores
      last = now;
      now = next;
    }
    for_each_turn([&]<size_t TURN>() { gather<TURN>(last, (items - 1) % 2); });
    store_sums();
  }

  template <typename Work, size_t... TURN>
  INLINE static void call_each(Work&& work, Turns<TURN...>) {
    (work.template operator()<TURN>(), ...);
  }
  template <typename Work>
  INLINE static void for_each_turn(Work&& work) {
    call_each(work, AllTurns<TURNS>());
  }

  // What is multiplied beside an item's weights; null at the ends.
  struct Neighbours {
    const Item *last, *next;
  };

  // Makes the weights of `now`, and meanwhile the scores of the next item and the sums of the last.
  template <bool IS_SHIFTED, bool IS_WHOLE>
  INLINE void overlap(const Neighbours& around, const Item& now, size_t side) {
    const auto weigh_rows = [&](size_t first, size_t end) __attribute__((always_inline)) {
      for (size_t row = first; row < end && row < now.rows; row++)
        weigh<PIECES, IS_SHIFTED, IS_WHOLE>(scores_[side], now.count, row, *now.queries,
                                            weights_[side]);
    };
    constexpr size_t HALF = SIDE / 2;
    for_each_turn([&]<size_t TURN>() __attribute__((always_inline)) {
      if (around.next != nullptr) score<TURN>(*around.next, 1 - side);
      weigh_rows(TURN * HALF / TURNS, (TURN + 1) * HALF / TURNS);
    });
    for_each_turn([&]<size_t TURN>() __attribute__((always_inline)) {
      if (around.last != nullptr) gather<TURN>(*around.last, 1 - side);
      weigh_rows(HALF + TURN * HALF / TURNS, HALF + (TURN + 1) * HALF / TURNS);
    });
  }

  // The tiles' sums are stored when others begin: whoever stored them at once would have all that
  // follows wait for the products.
  template <size_t SHARE, bool ARE_NEW>
  INLINE void begin(float* sums) {
    if constexpr (PIECES == COARSE) {
      begin_half<SHARE, ARE_NEW>(sums);
    } else if constexpr (SHARE == 0) {
      begin_half<0, ARE_NEW>(sums);
      begin_half<1, ARE_NEW>(sums);
    }
  }
  template <size_t HALF, bool ARE_NEW>
  INLINE void begin_half(float* sums) {
    store_half_sums<HALF>(stored_);
    if constexpr (ARE_NEW) {
      _tile_zero(2 * HALF);
      _tile_zero(2 * HALF + 1);
    } else {
      load_half_sums<HALF>(sums);
    }
    if constexpr (HALF == 1) stored_ = sums;
  }

  // A segment's last keys may be fewer tiles than are looked at together.
  template <size_t TILE>
  INLINE static bool has_tile(const Item& item) {
    return TILE == 0 || TILE * SIDE < item.count;
  }

  // Multiplies a share of the scores of a key tile.
  template <size_t TURN>
  INLINE void score(const Item& item, size_t side) {
    constexpr size_t SHARE = TURN % SHARES<PIECES>, UNIT_INDEX = TURN / SHARES<PIECES>;
    constexpr size_t STEP_INDEX = UNIT_INDEX % STEPS, TILE = UNIT_INDEX / STEPS;
    if (!has_tile<TILE>(item)) return;
    if constexpr (STEP_INDEX == 0) begin<SHARE, true>(scores_[side] + TILE * SCORES);
    add_share<PIECES, SHARE>(item.queries->rows + STEP_INDEX * STEP,
                             item.keys + (TILE * STEPS + STEP_INDEX) * STEP);
  }

  // All scores of a block with KEY_TILES key tiles, at once.
  void score_all(const Item& item) {
    stored_ = spare_;
    for_each_turn([&]<size_t TURN>() __attribute__((always_inline)) { score<TURN>(item, 0); });
    store_sums();
  }
  INLINE void store_sums() {
    store_half_sums<0>(stored_);
    store_half_sums<1>(stored_);
  }

  // Multiplies a share of the weighted values of a key tile.
  template <size_t TURN>
  INLINE void gather(const Item& item, size_t side) {
    constexpr size_t SHARE = TURN % SHARES<PIECES>, UNIT_INDEX = TURN / SHARES<PIECES>;
    constexpr size_t TILE = UNIT_INDEX % KEY_TILES, STEP_INDEX = UNIT_INDEX / KEY_TILES;
    if (!has_tile<TILE>(item)) return;
    if constexpr (TILE == 0) begin<SHARE, false>(item.queries->sums + STEP_INDEX * SCORES);
    add_share<PIECES, SHARE>(weights_[side] + TILE * STEP,
                             item.values + (STEP_INDEX * work_.key_tiles + TILE) * STEP);
  }

  float total(size_t block, size_t row) const {
    return sum(load(made_[block].totals + row * WIDTH));
  }

  // Whether scores were measured from near enough.
  bool is_near(size_t block) const {
    for (size_t row = 0; row < rows_of(block); row++) {
      const float found = total(block, row);
      if (!(found >= LEAST_TOTAL<PIECES> && found <= MOST_TOTAL<PIECES>)) return false;
    }
    return true;
  }

  // Writes a block's results, with what was taken off the values.
  void finish(size_t block) const {
    const size_t size = work_.base.size, width = work_.base.heads * size;
    const float* centre = PIECES == COARSE ? centre_of(work_, tiled_) + size : nullptr;
    for (size_t row = 0; row < rows_of(block); row++) {
      const Floats inverse = broadcast(1.0f / total(block, row));
      float* out = work_.base.out + (tiled_.part.first + block * SIDE + row) * width +
                   tiled_.part.head * size;
      for (size_t d = 0; d < size; d += WIDTH) {
        const __mmask16 lanes = lanes_of(d, size);
        const float* sums = made_[block].sums + d / SIDE * SCORES + row * SIDE + d % SIDE;
        Floats middle = broadcast(0.0f);
        if (centre != nullptr) middle = _mm512_maskz_loadu_ps(lanes, centre + d);
        _mm512_mask_storeu_ps(out + d, lanes, fma(load(sums), inverse, middle));
      }
    }
  }

  const TowerAttentionTiled& work_;
  const TowerTiledPart& tiled_;
  size_t keys_, queries_, key_blocks_;
  float* stored_;  // where the tiles' sums belong
  // Of two items: scores [key tiles, 32, 32], and weights, a step of rows for each key tile.
  alignas(64) float scores_[2][KEY_TILES * SCORES];
  alignas(64) uint8_t weights_[2][KEY_TILES * STEP];
  alignas(64) float spare_[SCORES];  // for what is in the tiles before the first sums
  Queries made_[BLOCKS];
};

template <size_t PIECES>
void compute(const TowerAttentionTiled& work, const TowerTiledPart& tiled) {
  begin_tiles();
  switch (work.steps) {
    case 1: Part<PIECES, 1>(work, tiled).compute(); break;
    case 2: Part<PIECES, 2>(work, tiled).compute(); break;
    case 3: Part<PIECES, 3>(work, tiled).compute(); break;
    case 4: Part<PIECES, 4>(work, tiled).compute(); break;
    default: Part<PIECES, MOST_SIZE / SIDE>(work, tiled).compute();
  }
  _tile_release();
}

}  // namespace

const TowerAttentionTiledKernel TOWER_ATTENTION_TILED = {STEP_BYTES<EXACT>, nullptr, prepare<EXACT>,
                                                         compute<EXACT>};
const TowerAttentionTiledKernel TOWER_ATTENTION_COARSE = {STEP_BYTES<COARSE>, find_centre,
                                                          prepare<COARSE>, compute<COARSE>};

}  // namespace TANDEM_ISA
