// Checks of what is said when something is wrong.
#pragma once

#include <string>
#include <string_view>

#include "engine/error.h"

namespace topolm {

/// The message of the Error that `f` throws, or "" when it throws none. For checks on parts of a sentence.
template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

inline bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace topolm
