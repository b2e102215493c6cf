#include "members.h"

#include <stdlib.h>

namespace {

struct Pass {
  const int64_t* bounds;
  const int32_t* leaves_at;
  int64_t* rows_computed;
  size_t images;
  int32_t step;  // operators so far
  Rows* runs;    // [images], those of the latest operator; null where no pass runs
};

thread_local Pass pass = {};

// Whether `rows` can be shared out as the patches are.
bool fits(size_t rows) {
  const size_t patches = pass.bounds[pass.images];
  for (size_t i = 0; i <= pass.images; i++)
    if (patches == 0 || rows * pass.bounds[i] % patches != 0) return false;
  return true;
}

}  // namespace

LiveRows::LiveRows(size_t rows) : whole_{0, rows} {
  if (pass.runs == nullptr) return;
  const int32_t step = pass.step++;
  if (!fits(rows)) return;
  const size_t patches = pass.bounds[pass.images];
  count_ = 0;
  runs_ = pass.runs;
  for (size_t i = 0; i < pass.images; i++) {
    if (__atomic_load_n(&pass.leaves_at[i], __ATOMIC_RELAXED) <= step) continue;
    const size_t first = rows * pass.bounds[i] / patches;
    const size_t count = rows * pass.bounds[i + 1] / patches - first;
    pass.rows_computed[i] += count;
    Rows* last = count_ == 0 ? nullptr : &pass.runs[count_ - 1];
    if (last != nullptr && last->first + last->count == first)
      last->count += count;
    else
      pass.runs[count_++] = {first, count};
  }
}

bool begin_pass(const int64_t* bounds, const int32_t* leaves_at, int64_t* rows_computed,
                size_t images) {
  end_pass();
  auto* runs = static_cast<Rows*>(malloc((images + 1) * sizeof(Rows)));
  pass = {bounds, leaves_at, rows_computed, images, 0, runs};
  return runs != nullptr;
}

void end_pass() {
  free(pass.runs);
  pass = {};
}
