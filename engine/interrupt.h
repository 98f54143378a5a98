// Ctrl-C, and the SIGTERM that job schedulers send: the first asks to stop after saving, the second stops.
#pragma once

namespace topolm {

/// While one lives, the first SIGINT or SIGTERM makes interrupted() true and a second one exits at once with
/// 130. Afterwards the handlers of before are back. One at a time.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
};

/// Whether the living guard, if there is one, has seen a signal. May be called from any thread.
bool interrupted();

}  // namespace topolm
