// Files: memory-mapped for reading; written beside the target, flushed and renamed, so that a full disk or a
// kill in the middle leaves the old file whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace topolm {

namespace fs = std::filesystem;

/// A whole file, read-only, paged in by the kernel as it is touched. Empty files map to an empty span.
class MappedFile {
 public:
  explicit MappedFile(const fs::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const fs::path& path() const { return path_; }
  /// Gives the pages that lie within `part` back to the system, to be read again if need be.
  void forget(std::span<const std::byte> part) const;

 private:
  fs::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// A file being written under a temporary name. Nothing appears under `path` before commit(), which flushes
/// to the disk and renames; without commit() the temporary is removed. A full disk is an Error naming the
/// file.
class OutputFile {
 public:
  explicit OutputFile(fs::path path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(const void* data, size_t size);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();

 private:
  fs::path path_, temporary_;
  int descriptor_ = -1;
};

std::string read_file(const fs::path& path);
void write_file(const fs::path& path, std::string_view contents);

/// Creates `path` and its parents; an Error says which directory could not be made and why.
void make_directories(const fs::path& path);

/// Flushes a directory's entries, so that a rename in it survives a power cut.
void sync_directory(const fs::path& path);

}  // namespace topolm
