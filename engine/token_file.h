// Token streams on disk: little-endian uint16, bare (nanoGPT, the official TopoLM code) or behind llm.c's
// header. Which of the two is told by looking; so is what is neither.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "engine/file.h"

namespace topolm {

/// A file of tokens or a part of one, memory-mapped. Cheap to copy: copies and slices share the mapping.
class TokenFile {
 public:
  /// Throws Error, with what to do about it, for a missing, empty, cut or foreign file.
  explicit TokenFile(const fs::path& path);

  int64_t size() const { return static_cast<int64_t>(tokens_.size()); }
  uint16_t operator[](int64_t i) const { return tokens_[static_cast<size_t>(i)]; }
  /// Copies out.size() tokens from `offset` on; they must lie inside.
  void read(int64_t offset, std::span<int32_t> out) const;

  /// Tokens [begin, begin + count) as a stream of their own, such as a tail held out for validation.
  TokenFile slice(int64_t begin, int64_t count) const;

  /// The largest token, -1 without any; the vocabulary must be larger. Reads everything once, then remembers.
  int32_t max_token() const;

  /// Whether both are the same part of the same mapped file.
  bool operator==(const TokenFile& other) const {
    return tokens_.data() == other.tokens_.data() && tokens_.size() == other.tokens_.size();
  }

  /// "raw uint16" or "llm.c shard".
  const std::string& format() const { return format_; }
  const fs::path& path() const { return file_->path(); }

 private:
  std::shared_ptr<const MappedFile> file_;
  std::string format_;
  std::span<const uint16_t> tokens_;
  mutable std::optional<int32_t> max_token_;
};

}  // namespace topolm
