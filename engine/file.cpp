#include "engine/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "engine/error.h"

namespace topolm {

namespace {

std::string reason() { return std::strerror(errno); }

}  // namespace

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  require(fd >= 0, "cannot open '{}': {}; check the path", path.string(), reason());
  struct stat info {};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    fail("'{}' is not a regular file; a file is needed here", path.string());
  }
  size_ = static_cast<size_t>(info.st_size);
  if (size_ > 0) {
    void* p = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    const std::string why = reason();
    close(fd);
    require(p != MAP_FAILED, "cannot map '{}' into memory: {}", path.string(), why);
    data_ = static_cast<const std::byte*>(p);
  } else {
    close(fd);
  }
}

MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::forget(std::span<const std::byte> part) const {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const auto offset = static_cast<size_t>(part.data() - data_);
  const size_t begin = (offset + page - 1) / page * page, end = (offset + part.size()) / page * page;
  if (begin < end) madvise(const_cast<std::byte*>(data_ + begin), end - begin, MADV_DONTNEED);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

OutputFile::OutputFile(fs::path path) : path_(std::move(path)) {
  // A device (/dev/stdout, /dev/full) cannot be renamed onto: write it directly.
  std::error_code ignored;
  const bool plain = !fs::exists(path_, ignored) || fs::is_regular_file(path_, ignored);
  temporary_ = path_;
  if (plain) temporary_ += ".partial";
  descriptor_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  require(descriptor_ >= 0, "cannot write '{}': {}; choose a writable place", path_.string(), reason());
}

OutputFile::~OutputFile() {
  if (descriptor_ < 0) return;
  close(descriptor_);
  if (temporary_ != path_) unlink(temporary_.c_str());
}

void OutputFile::write(const void* data, size_t size) {
  const char* p = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t n = ::write(descriptor_, p, size);
    if (n < 0 && errno == EINTR) continue;
    require(n > 0, "cannot write '{}': {}; the previous version, if any, is untouched", path_.string(),
            reason());
    p += n;
    size -= static_cast<size_t>(n);
  }
}

void OutputFile::commit() {
  const bool is_device = temporary_ == path_;
  require(is_device || fsync(descriptor_) == 0, "cannot flush '{}' to disk: {}", path_.string(), reason());
  require(close(std::exchange(descriptor_, -1)) == 0, "cannot close '{}': {}", path_.string(), reason());
  if (is_device) return;
  if (rename(temporary_.c_str(), path_.c_str()) != 0) {
    const std::string why = reason();
    unlink(temporary_.c_str());
    fail("cannot rename '{}' to '{}': {}", temporary_.string(), path_.string(), why);
  }
}

std::string read_file(const fs::path& path) {
  const MappedFile file(path);
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

void write_file(const fs::path& path, std::string_view contents) {
  OutputFile file(path);
  file.write(contents);
  file.commit();
}

void make_directories(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  require(!error && fs::is_directory(path), "cannot create the directory '{}': {}", path.string(),
          error ? error.message() : "a file of that name is in the way");
}

void sync_directory(const fs::path& path) {
  const int fd = open(path.empty() ? "." : path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return;  // some file systems do not let directories be opened; the rename stays atomic without it
  fsync(fd);
  close(fd);
}

}  // namespace topolm
