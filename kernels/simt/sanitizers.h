// What AddressSanitizer and ThreadSanitizer must be told of a machine that switches stacks and hands out
// shared memory. Without them every function here is empty. The machine's own files are compiled without
// ThreadSanitizer even where everything else has it (Makefile): it shall see the kernels' accesses, not ours.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

extern "C" {
void __asan_poison_memory_region(const volatile void* memory, size_t bytes);
void __asan_unpoison_memory_region(const volatile void* memory, size_t bytes);
void __tsan_acquire(void* token);
void __tsan_release(void* token);
void __tsan_read_range(void* memory, unsigned long bytes);
void __tsan_write_range(void* memory, unsigned long bytes);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}

namespace topolm::simt {

#if defined(__has_feature)
#define TOPOLM_HAS_FEATURE(name) __has_feature(name)
#else
#define TOPOLM_HAS_FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || TOPOLM_HAS_FEATURE(address_sanitizer)
constexpr bool kAddressSanitizer = true;
#else
constexpr bool kAddressSanitizer = false;
#endif
#if defined(__SANITIZE_THREAD__) || TOPOLM_HAS_FEATURE(thread_sanitizer) || defined(TOPOLM_THREAD_SANITIZER)
constexpr bool kThreadSanitizer = true;
#else
constexpr bool kThreadSanitizer = false;
#endif
#undef TOPOLM_HAS_FEATURE

[[gnu::always_inline]] inline void forbid_access(void* memory, size_t bytes) {
  if constexpr (kAddressSanitizer) __asan_poison_memory_region(memory, bytes);
}
[[gnu::always_inline]] inline void allow_access(void* memory, size_t bytes) {
  if constexpr (kAddressSanitizer) __asan_unpoison_memory_region(memory, bytes);
}

/// What a thread did before it released a token happened before what another does after it acquired it.
struct alignas(8) Token {
  char unused;
  [[gnu::always_inline]] void acquire() {
    if constexpr (kThreadSanitizer) __tsan_acquire(this);
  }
  [[gnu::always_inline]] void release() {
    if constexpr (kThreadSanitizer) __tsan_release(this);
  }
};

/// Accesses that the running thread does not make in its own instructions.
[[gnu::always_inline]] inline void note_read(const void* memory, size_t bytes) {
  if constexpr (kThreadSanitizer) __tsan_read_range(const_cast<void*>(memory), bytes);
}
[[gnu::always_inline]] inline void note_write(void* memory, size_t bytes) {
  if constexpr (kThreadSanitizer) __tsan_write_range(memory, bytes);
}

/// While it lives, this thread's accesses are not checked for races.
class UncheckedAccesses {
 public:
  UncheckedAccesses() {
    if constexpr (kThreadSanitizer) {
      AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
      AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    }
  }
  ~UncheckedAccesses() {
    if constexpr (kThreadSanitizer) {
      AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
      AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    }
  }
  UncheckedAccesses(const UncheckedAccesses&) = delete;
  UncheckedAccesses& operator=(const UncheckedAccesses&) = delete;
};

/// memset to NaN. ThreadSanitizer watches memset wherever it is called from, but not these stores.
[[gnu::always_inline]] inline void fill_with_nan(void* memory, size_t bytes) {
  if constexpr (kThreadSanitizer) {
    for (size_t i = 0; i < bytes; ++i) static_cast<volatile unsigned char*>(memory)[i] = 0xff;
  } else {
    std::memset(memory, 0xff, bytes);
  }
}

}  // namespace topolm::simt
