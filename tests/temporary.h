// A directory of a test's own, gone when the test ends.
#pragma once

#include <cstdlib>
#include <string>

#include "engine/error.h"
#include "engine/file.h"
#include "tests/errors.h"

namespace topolm {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    make_directories("build/tmp");
    std::string pattern = "build/tmp/XXXXXX";
    require(mkdtemp(pattern.data()) != nullptr, "cannot make a directory in build/tmp");
    path_ = pattern;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const fs::path& path() const { return path_; }
  fs::path operator/(const std::string& name) const { return path_ / name; }

  /// Writes a file in it and returns the file's path.
  fs::path write(const std::string& name, std::string_view contents) const {
    write_file(path_ / name, contents);
    return path_ / name;
  }

 private:
  fs::path path_;
};

}  // namespace topolm
