// Working memory that outlives a run, so that its pages are not asked for again and again.
#pragma once
#include <stddef.h>
#include <stdlib.h>

// One buffer for the process, which grows to the largest run; a run beside another one, which the
// decoder does not do, gets memory of its own.
class Scratch {
 public:
  explicit Scratch(size_t bytes) {
    if (!__atomic_exchange_n(&taken, true, __ATOMIC_ACQUIRE)) {
      shared = true;
      if (size < bytes) {
        free(kept);
        kept = aligned_alloc(ALIGNMENT, rounded(bytes));
        size = kept == nullptr ? 0 : bytes;
      }
      memory = kept;
    } else {
      memory = aligned_alloc(ALIGNMENT, rounded(bytes));
    }
  }
  ~Scratch() {
    if (shared)
      __atomic_store_n(&taken, false, __ATOMIC_RELEASE);
    else
      free(memory);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Null where there was no memory.
  char* data() const { return static_cast<char*>(memory); }

 private:
  static constexpr size_t ALIGNMENT = 64;
  static size_t rounded(size_t bytes) { return (bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT; }
  static inline bool taken = false;
  static inline void* kept = nullptr;
  static inline size_t size = 0;

  void* memory = nullptr;
  bool shared = false;
};
