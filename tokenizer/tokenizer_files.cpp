#include "tokenizer/tokenizer_files.h"

#include <array>
#include <vector>

#include "engine/error.h"

namespace topolm {

namespace {

struct Pair {
  const char *vocab, *merges;
};
constexpr std::array<Pair, 2> kPairs{{{"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}}};

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

Tokenizer load_directory(const fs::path& directory) {
  if (is_file(directory / "tokenizer.json")) return read_tokenizer_json(directory / "tokenizer.json");
  for (const Pair& pair : kPairs) {
    if (is_file(directory / pair.vocab) && is_file(directory / pair.merges))
      return read_vocab_and_merges(directory / pair.vocab, directory / pair.merges);
  }
  std::vector<fs::path> rank_files;
  for (const auto& entry : fs::directory_iterator(directory))
    if (entry.path().extension() == ".tiktoken") rank_files.push_back(entry.path());
  require(rank_files.size() < 2, "'{}' holds {} .tiktoken files; name the one you mean", directory.string(),
          rank_files.size());
  require(!rank_files.empty(),
          "'{}' holds no tokenizer; it needs tokenizer.json, vocab.json with merges.txt, encoder.json with "
          "vocab.bpe, or a .tiktoken file",
          directory.string());
  return read_tiktoken(rank_files[0]);
}

}  // namespace

Tokenizer load_tokenizer(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return load_directory(path);
  for (const Pair& pair : kPairs) {
    if (path.filename() == pair.vocab)
      return read_vocab_and_merges(path, fs::path(path).replace_filename(pair.merges));
    if (path.filename() == pair.merges)
      return read_vocab_and_merges(fs::path(path).replace_filename(pair.vocab), path);
  }
  if (path.extension() == ".tiktoken") return read_tiktoken(path);
  if (path.extension() == ".json") return read_tokenizer_json(path);
  // A name that says nothing: JSON begins with a brace, and no line of base64 does.
  const MappedFile file(path);
  const bool json = !file.bytes().empty() && file.bytes()[0] == std::byte{'{'};
  return json ? read_tokenizer_json(path) : read_tiktoken(path);
}

}  // namespace topolm
