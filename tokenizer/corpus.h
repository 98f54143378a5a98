// From text files to what a training run reads: token files, a tokenizer, and a record of where they came
// from.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/file.h"
#include "engine/parallel.h"
#include "tokenizer/tokenizer.h"

namespace topolm {

/// Where `text` is cut so that about its last `fraction` is for validation: at the end of the paragraph
/// (blank line) nearest to the exact place, if one is no farther from it than a tenth of the validation part;
/// else at the nearest end of a line that is so near; else at the exact place, moved back to where a
/// character begins.
size_t validation_begin(std::string_view text, double fraction);

/// The tokens of each document followed by <|endoftext|>, one document after another. The same at any number
/// of threads. Throws Error when the tokenizer has no <|endoftext|> or ids beyond 16 bits.
std::vector<uint16_t> encode_documents(const Tokenizer& tokenizer,
                                       std::span<const std::string_view> documents, ThreadPool& pool);

struct CorpusOptions {
  std::vector<std::string> texts;  // paths, or "-" for standard input; each is one document
  fs::path directory;
  int32_t vocab_size = 4096;
  std::string tokenizer;  // a tokenizer to load instead of training one
  double validation = 0.1;
};

struct EncodedFile {
  std::string name;
  int64_t bytes = 0;   // of text
  int64_t tokens = 0;  // <|endoftext|> included
  std::string sha256;
};

struct CorpusReport {
  int64_t bytes = 0;  // of all texts
  int32_t vocab_size = 0;
  double training_seconds = 0;
  double encoding_seconds = 0;
  std::vector<EncodedFile> files;  // train.bin and, unless validation is 0, val.bin
};

/// Writes tokenizer.json, train.bin, val.bin and meta.json into the directory, meta.json last. Token files
/// are raw little-endian uint16. Each document gives its last `validation` to val.bin, so that both parts are
/// the same mix. The vocabulary is trained on the train part alone: the validation loss shall be that of
/// unseen text. Throws Error on a missing or empty text, a vocabulary beyond 16 bits, or a file that cannot
/// be written.
CorpusReport build_corpus(const CorpusOptions& options, ThreadPool& pool);

}  // namespace topolm
