// extract_novels: Debian's package r-cran-janeaustenr -> Jane Austen's six novels as text files. The
// package's data/Rdata.rdb holds one vector of lines a novel; a novel's first line is its title.
#include <cctype>
#include <string>

#include "engine/file.h"
#include "tools/main.h"
#include "tools/rdata.h"

using namespace topolm;

namespace {

/// "PRIDE AND PREJUDICE" -> "pride_and_prejudice": nothing that could leave the directory.
std::string file_name_of(const std::string& title) {
  std::string name;
  for (const char c : title) {
    if (std::isalnum(static_cast<unsigned char>(c))) {
      name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else if (!name.empty() && name.back() != '_') {
      name += '_';
    }
  }
  while (!name.empty() && name.back() == '_') name.pop_back();
  return name;
}

void extract(const fs::path& rdb, const fs::path& directory) {
  const std::vector<RStrings> novels = read_rdb(rdb);
  make_directories(directory);
  for (const RStrings& lines : novels) {
    std::string title, text;
    for (const auto& line : lines) {
      if (title.empty()) title = file_name_of(line.value_or(""));
      text += line.value_or("") + "\n";
    }
    require(!title.empty(), "'{}' holds a text without a title", rdb.string());
    write_file(directory / (title + ".txt"), text);
    fmt::print("{:<32} {} lines, {} bytes\n", title + ".txt", lines.size(), text.size());
  }
}

}  // namespace

int main(int argc, char** argv) {
  fs::path rdb, directory;
  CLI::App app("Extracts Jane Austen's novels from the data of Debian's r-cran-janeaustenr.",
               "extract_novels");
  app.add_option("RDB", rdb, "the package's data/Rdata.rdb")->required();
  app.add_option("DIR", directory, "directory to write the text files into")->required();
  return run_main(app, argc, argv, [&] { extract(rdb, directory); });
}
