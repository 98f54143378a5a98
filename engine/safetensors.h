// The safetensors format: an 8-byte little-endian header length, a JSON header that gives each tensor its
// dtype, shape and place, then the data. F32, BF16 and I32 are read and written.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/file.h"
#include "engine/tensor.h"

namespace topolm {

/// A named tensor in host memory. It owns nothing.
struct HostTensor {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  const void* data = nullptr;

  int64_t bytes() const { return shape.elements() * size_of(dtype); }
};

/// Fills `to` with a tensor's bytes from `begin` on.
using ReadTensor = std::function<void(size_t tensor, int64_t begin, std::span<std::byte> to)>;

/// Writes the tensors, listed in the order given. Atomic: `path` is the old file or the whole new one.
/// What a tensor without data holds is asked of `read`, a few megabytes at a time.
/// Throws Error on a full disk and on a name given twice.
void write_safetensors(const fs::path& path, std::span<const HostTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {}, const ReadTensor& read = {});

/// A file mapped into memory and checked completely on opening: afterwards every tensor's bytes are there.
/// Throws Error, naming the file and the damage, for anything the format does not allow.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const fs::path& path);

  bool contains(std::string_view name) const { return find(name) != nullptr; }
  /// Throws Error when there is no such tensor, saying which there are. `data` is valid as long as this file
  /// and, in files of other programs, perhaps not aligned to its type: copy it, do not dereference it.
  const HostTensor& get(std::string_view name) const;
  /// Lets go of pages of a tensor's data, which count as this process's memory once they were read; they stay
  /// valid.
  void forget(std::span<const std::byte> data) const { file_.forget(data); }
  /// In the order of the header.
  const std::vector<HostTensor>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const fs::path& path() const { return file_.path(); }

 private:
  const HostTensor* find(std::string_view name) const;

  MappedFile file_;
  std::vector<HostTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace topolm
