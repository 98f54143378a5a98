// Something to train on where only time matters.
#pragma once

#include <unistd.h>

#include <fmt/format.h>
#include "engine/random.h"
#include "engine/token_file.h"

namespace topolm {

/// These tokens as a file is read; the file is gone when this returns, the mapping stays.
inline TokenFile mapped_tokens(const std::vector<uint16_t>& tokens) {
  const fs::path path = fs::temp_directory_path() / fmt::format("topolm-random-{}.bin", getpid());
  write_file(path, {reinterpret_cast<const char*>(tokens.data()), 2 * tokens.size()});
  TokenFile file(path);
  fs::remove(path);
  return file;
}

/// A stream of random tokens.
inline TokenFile random_tokens(int vocab_size, int64_t count) {
  std::vector<uint16_t> tokens(static_cast<size_t>(count));
  Random random(1, Random::Purpose::tests);
  for (uint16_t& t : tokens) t = static_cast<uint16_t>(random.below(static_cast<uint64_t>(vocab_size)));
  return mapped_tokens(tokens);
}

}  // namespace topolm
