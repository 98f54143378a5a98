// What Linux says of this process's memory.
#pragma once

#include <fstream>
#include <string>

namespace topolm {

/// A field of /proc/self/status, such as VmHWM, in bytes; 0 where there is none.
inline double process_memory(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (double kilobytes = 0; word == field + ":" && status >> kilobytes) return 1024 * kilobytes;
  return 0;
}

}  // namespace topolm
