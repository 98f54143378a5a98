#include "engine/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/error.h"

namespace topolm {

namespace {

using Json = nlohmann::ordered_json;  // keeps the names in the order of the file
static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr const char* kMetadata = "__metadata__";

const char* code_of(DType t) { return t == DType::f32 ? "F32" : t == DType::bf16 ? "BF16" : "I32"; }

/// Where the tensors' data lie, as offsets into the data: four-byte types first, so that an odd number of
/// bf16 values does not leave the floats behind it unaligned. The format asks for no order, only no gaps.
std::vector<int64_t> plan_offsets(std::span<const HostTensor> tensors) {
  std::vector<int64_t> offsets(tensors.size());
  int64_t end = 0;
  for (const int64_t width : {4, 2}) {
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (size_of(tensors[i].dtype) != width) continue;
      offsets[i] = end;
      end += tensors[i].bytes();
    }
  }
  return offsets;
}

/// Reads one header. Every check fails with a sentence that begins with the file's name.
class Reader {
 public:
  explicit Reader(const MappedFile& file) : path_(file.path().string()), bytes_(file.bytes()) {
    const std::string_view header = split();
    const Json json = parse(header);
    for (const auto& [name, value] : json.items()) {
      if (name == kMetadata) {
        read_metadata(value);
      } else {
        read_tensor(name, value);
      }
    }
    check_coverage();
  }

  std::vector<HostTensor> tensors;
  std::map<std::string, std::string> metadata;

 private:
  struct Extent {
    uint64_t begin, end;
    size_t tensor;
  };

  template <class... Args>
  void check(bool good, fmt::format_string<Args...> problem, Args&&... args) const {
    if (!good) fail("'{}' {}", path_, fmt::format(problem, std::forward<Args>(args)...));
  }

  /// Cuts the file into header and data.
  std::string_view split() {
    check(bytes_.size() >= 8, "is truncated: it has {} bytes, a safetensors file at least 8; copy it again",
          bytes_.size());
    uint64_t length;
    std::memcpy(&length, bytes_.data(), 8);
    check(bytes_.size() == 8 || bytes_[8] == std::byte{'{'},
          "is not a safetensors file: its header does not begin with '{{'; check the path");
    check(length <= bytes_.size() - 8,
          "is truncated: its header wants {} bytes, the file has {}; copy it again", length, bytes_.size());
    data_ = bytes_.subspan(8 + length);
    return {reinterpret_cast<const char*>(bytes_.data() + 8), length};
  }

  Json parse(std::string_view header) const {
    // The JSON parser keeps the last of two equal keys in silence, so they are counted on the way.
    std::set<std::string> names;
    const auto count = [&](int depth, Json::parse_event_t event, Json& key) {
      if (event == Json::parse_event_t::key && depth == 1) {
        const std::string& name = key.get_ref<const std::string&>();
        check(names.insert(name).second, "is damaged: it has two tensors named '{}'; write it again", name);
      }
      return true;
    };
    Json json;
    try {
      json = Json::parse(header, count);
    } catch (const Json::exception& e) {
      check(false, "is damaged: its header is not JSON ({}); copy it again", e.what());
    }
    check(json.is_object(), "is damaged: its header is not a JSON object; copy it again");
    return json;
  }

  void read_metadata(const Json& value) {
    check(value.is_object(), "is damaged: '{}' is not an object of strings", kMetadata);
    for (const auto& [key, text] : value.items()) {
      check(text.is_string(), "is damaged: '{}' has a '{}' that is not a string", kMetadata, key);
      metadata[key] = text.get<std::string>();
    }
  }

  void read_tensor(const std::string& name, const Json& value) {
    const bool complete = value.is_object() && value.contains("dtype") && value["dtype"].is_string() &&
                          value.contains("shape") && value["shape"].is_array() &&
                          value.contains("data_offsets") && value["data_offsets"].is_array();
    check(complete, "is damaged: '{}' lacks a dtype, shape or data_offsets; copy it again", name);

    HostTensor tensor{name, read_dtype(name, value["dtype"]), read_shape(name, value["shape"]), nullptr};
    const std::vector<int64_t> place = read_integers(name, "data_offsets", value["data_offsets"]);
    check(place.size() == 2 && place[0] <= place[1], "is damaged: the data_offsets of '{}' are {}", name,
          value["data_offsets"].dump());
    const Extent extent{static_cast<uint64_t>(place[0]), static_cast<uint64_t>(place[1]), tensors.size()};
    check(extent.end <= data_.size(),
          "is truncated: '{}' ends at byte {} of the data, the file has {} bytes of it; copy it again", name,
          extent.end, data_.size());
    check(extent.end - extent.begin == static_cast<uint64_t>(tensor.bytes()),
          "is damaged: '{}' of {} {} needs {} bytes and has {}; copy it again", name, code_of(tensor.dtype),
          tensor.shape.str(), tensor.bytes(), extent.end - extent.begin);
    tensor.data = data_.data() + extent.begin;
    extents_.push_back(extent);
    tensors.push_back(std::move(tensor));
  }

  DType read_dtype(const std::string& name, const Json& value) const {
    const std::string& code = value.get_ref<const std::string&>();
    for (const DType t : {DType::f32, DType::bf16, DType::i32})
      if (code == code_of(t)) return t;
    fail("'{}' has a tensor '{}' of dtype {}; convert it to F32, BF16 or I32", path_, name, code);
  }

  Shape read_shape(const std::string& name, const Json& value) const {
    const std::vector<int64_t> dims = read_integers(name, "shape", value);
    check(dims.size() <= 4, "has a tensor '{}' of {} dimensions; at most 4 are read", name, dims.size());
    int64_t bytes = 4;
    for (const int64_t d : dims)
      check(!__builtin_mul_overflow(bytes, d, &bytes), "is damaged: the shape {} of '{}' overflows",
            value.dump(), name);
    return Shape(dims);
  }

  std::vector<int64_t> read_integers(const std::string& name, const char* field, const Json& array) const {
    std::vector<int64_t> integers;
    for (const Json& v : array) {
      check(v.is_number_unsigned() && v.get<uint64_t>() <= INT64_MAX,
            "is damaged: the {} of '{}' has {} where a count belongs; copy it again", field, name, v.dump());
      integers.push_back(v.get<int64_t>());
    }
    return integers;
  }

  /// The format wants every byte of the data to belong to exactly one tensor.
  void check_coverage() {
    std::ranges::sort(extents_, [](const Extent& a, const Extent& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    uint64_t end = 0;
    for (const Extent& e : extents_) {
      check(e.begin == end, "is damaged: '{}' begins at byte {} of the data and {} {}; copy it again",
            tensors[e.tensor].name, e.begin,
            e.begin < end ? "overlaps the tensor that ends at" : "leaves a hole from", end);
      end = e.end;
    }
    check(end == data_.size(), "is damaged: {} bytes after its last tensor belong to none; copy it again",
          data_.size() - end);
  }

  const std::string path_;
  const std::span<const std::byte> bytes_;
  std::span<const std::byte> data_;
  std::vector<Extent> extents_;
};

void write_tensor(OutputFile& file, const HostTensor& t, size_t index, const ReadTensor& read) {
  if (t.data || !read) return file.write(t.data, static_cast<size_t>(t.bytes()));
  constexpr int64_t kPiece = 4 << 20;
  std::vector<std::byte> piece(static_cast<size_t>(std::min(kPiece, t.bytes())));
  for (int64_t begin = 0; begin < t.bytes(); begin += kPiece) {
    const auto part = std::span(piece).first(static_cast<size_t>(std::min(kPiece, t.bytes() - begin)));
    read(index, begin, part);
    file.write(part.data(), part.size());
  }
}

}  // namespace

void write_safetensors(const fs::path& path, std::span<const HostTensor> tensors,
                       const std::map<std::string, std::string>& metadata, const ReadTensor& read) {
  Json json = Json::object();
  if (!metadata.empty()) json[kMetadata] = metadata;
  const std::vector<int64_t> offsets = plan_offsets(tensors);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const HostTensor& t = tensors[i];
    require(!json.contains(t.name) && t.name != kMetadata, "cannot write '{}': two tensors are named '{}'",
            path.string(), t.name);
    Json shape = Json::array();
    for (int d = 0; d < t.shape.rank(); ++d) shape.push_back(t.shape[d]);
    json[t.name] = {{"dtype", code_of(t.dtype)},
                    {"shape", shape},
                    {"data_offsets", {offsets[i], offsets[i] + t.bytes()}}};
  }
  // Metadata may hold a path or a command line, which need not be UTF-8: replace, do not throw.
  std::string header = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  header.resize(static_cast<size_t>(ceil_div(static_cast<int64_t>(header.size()), 8) * 8), ' ');

  OutputFile file(path);
  const uint64_t length = header.size();
  file.write(&length, 8);
  file.write(header);
  for (const int64_t width : {4, 2})  // the order of plan_offsets
    for (size_t i = 0; i < tensors.size(); ++i)
      if (size_of(tensors[i].dtype) == width) write_tensor(file, tensors[i], i, read);
  file.commit();
}

SafetensorsFile::SafetensorsFile(const fs::path& path) : file_(path) {
  Reader reader(file_);
  tensors_ = std::move(reader.tensors);
  metadata_ = std::move(reader.metadata);
}

const HostTensor* SafetensorsFile::find(std::string_view name) const {
  const auto found = std::ranges::find(tensors_, name, &HostTensor::name);
  return found == tensors_.end() ? nullptr : &*found;
}

const HostTensor& SafetensorsFile::get(std::string_view name) const {
  const HostTensor* tensor = find(name);
  if (tensor) return *tensor;
  std::string names;
  constexpr size_t kShown = 8;
  for (size_t i = 0; i < std::min(kShown, tensors_.size()); ++i) names += (i ? ", " : "") + tensors_[i].name;
  if (tensors_.size() > kShown) names += fmt::format(", … ({} in all)", tensors_.size());
  fail("'{}' has no tensor '{}'; it has {}", path().string(), name, names.empty() ? "none" : names);
}

}  // namespace topolm
