// The images of a tower's pass, some of which may leave while it runs: from the next operator on,
// their rows are not computed any more. Nobody else's rows move or change.
//
// A pass belongs to the thread that runs its graph: ONNX Runtime calls the operators of a session
// that runs one node at a time on the thread that called it. Without a pass all rows are computed.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct Rows {
  size_t first, count;
};

// The rows that one operator computes: runs of neighbouring rows. Makes a step of the pass; who
// leaves while the operator runs is in it to its end.
class LiveRows {
 public:
  // `rows` of the operator's input, of which each image has the same share as of the patches.
  explicit LiveRows(size_t rows);
  LiveRows(const LiveRows&) = delete;
  LiveRows& operator=(const LiveRows&) = delete;

  const Rows* begin() const { return runs_; }
  const Rows* end() const { return runs_ + count_; }

 private:
  Rows whole_;
  const Rows* runs_ = &whole_;
  size_t count_ = 1;
};

// Begins a pass on this thread. The arrays stay the caller's and are used until it ends.
//   bounds         [images + 1], the patches where the images begin and end, from 0 on
//   leaves_at      [images], the step from which on an image's rows are not computed; other threads
//                  may lower it at any time
//   rows_computed  [images], counts the rows of an image that operators have computed
// Whether there was memory for it; if not, all rows are computed.
bool begin_pass(const int64_t* bounds, const int32_t* leaves_at, int64_t* rows_computed,
                size_t images);
void end_pass();
