#include "engine/interrupt.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

#include "engine/error.h"

namespace topolm {

namespace {

// timeout(1), mpirun and some shells signal a process and then its whole group: one request arrives twice.
// Taken for a second Ctrl-C, it would end the program before it has saved.
constexpr int64_t kSameRequest = 200'000'000;  // nanoseconds

std::atomic<int64_t> first_signal{0};  // when; 0 before
static_assert(std::atomic<int64_t>::is_always_lock_free, "signal handlers must not lock");

struct sigaction before_int, before_term;

int64_t now() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

void on_signal(int) {
  int64_t first = 0;
  const int64_t time = now();
  if (!first_signal.compare_exchange_strong(first, time) && time - first > kSameRequest) _exit(130);
}

}  // namespace

InterruptGuard::InterruptGuard() {
  first_signal = 0;
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;  // the checkpoint that is being written shall not fail with EINTR
  require(sigaction(SIGINT, &action, &before_int) == 0 && sigaction(SIGTERM, &action, &before_term) == 0,
          "cannot handle SIGINT and SIGTERM");
}

InterruptGuard::~InterruptGuard() {
  sigaction(SIGINT, &before_int, nullptr);
  sigaction(SIGTERM, &before_term, nullptr);
  first_signal = 0;
}

bool interrupted() { return first_signal != 0; }

}  // namespace topolm
