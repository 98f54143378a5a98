// The one exception type. Its sentence says what is wrong, in which file or flag, and what to do about it;
// main() prints it and exits with its status.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace topolm {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Ctrl-C or SIGTERM: what could be saved has been saved; main() exits 130.
class Interrupted : public Error {
 public:
  using Error::Error;
};

template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void require(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) fail(format, std::forward<Args>(args)...);
}

}  // namespace topolm
