#include "tokenizer/corpus.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/error.h"
#include "engine/sha256.h"
#include "tokenizer/bpe_trainer.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/tokenizer_files.h"

namespace topolm {

namespace {

static_assert(std::endian::native == std::endian::little,
              "token files are little-endian, and written as they lie");

constexpr size_t kPartBytes = 1 << 20;  // work for one thread; fixed, so that threads do not change the cuts
constexpr int32_t kMaxVocabSize = 65536;

struct Document {
  std::string name, text;
};

std::string read_standard_input() {
  std::string text;
  char buffer[1 << 16];
  while (const size_t n = std::fread(buffer, 1, sizeof buffer, stdin)) text.append(buffer, n);
  require(!std::ferror(stdin), "cannot read standard input");
  return text;
}

std::vector<Document> read_documents(const std::vector<std::string>& paths) {
  require(!paths.empty(), "there is no text; name at least one file");
  std::vector<Document> documents;
  for (const std::string& path : paths) {
    const Document& d =
        documents.emplace_back(Document{path, path == "-" ? read_standard_input() : read_file(path)});
    require(!d.text.empty(), "'{}' is empty; there is nothing to learn from it, leave it out", path);
  }
  return documents;
}

std::span<const std::byte> as_bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

/// The place in [low, high] after an occurrence of `mark` that is nearest to `exact`, or npos.
size_t nearest_after(std::string_view text, std::string_view mark, size_t low, size_t exact, size_t high) {
  const auto after = [&](size_t found) {
    return found == std::string_view::npos ? found : found + mark.size();
  };
  const size_t below =
      exact < mark.size() ? std::string_view::npos : after(text.rfind(mark, exact - mark.size()));
  const size_t above = after(text.find(mark, exact >= mark.size() ? exact - mark.size() + 1 : 0));
  const bool below_near = below != std::string_view::npos && below >= low && below > 0;
  const bool above_near = above != std::string_view::npos && above <= high && above < text.size();
  if (below_near && (!above_near || exact - below <= above - exact)) return below;
  return above_near ? above : std::string_view::npos;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Tokenizer make_tokenizer(const CorpusOptions& options, std::span<const std::string_view> texts,
                         ThreadPool& pool) {
  if (options.tokenizer.empty()) return train_bpe(texts, options.vocab_size, pool);
  Tokenizer tokenizer = load_tokenizer(options.tokenizer);
  require(tokenizer.vocab_size() <= kMaxVocabSize,
          "'{}' has {} tokens; token files hold 16 bits, so at most {} can be used", options.tokenizer,
          tokenizer.vocab_size(), kMaxVocabSize);
  require(tokenizer.eot() >= 0, "'{}' has no special token {}, which ends every document", options.tokenizer,
          kEndOfText);
  return tokenizer;
}

nlohmann::ordered_json describe(const EncodedFile& file) {
  return {{"file", file.name}, {"bytes", file.bytes}, {"tokens", file.tokens}, {"sha256", file.sha256}};
}

std::string describe(const CorpusReport& report, const std::vector<Document>& documents,
                     const Tokenizer& tokenizer, const std::string& tokenizer_sha256) {
  nlohmann::ordered_json meta;
  meta["tokenizer"] = {{"file", "tokenizer.json"}, {"sha256", tokenizer_sha256}};
  meta["vocab_size"] = report.vocab_size;
  meta["eot"] = tokenizer.eot();
  meta["dtype"] = "uint16";
  for (const EncodedFile& file : report.files)
    meta[file.name == "train.bin" ? "train" : "val"] = describe(file);
  for (const Document& d : documents)
    meta["sources"].push_back(
        {{"path", d.name}, {"bytes", d.text.size()}, {"sha256", sha256(as_bytes(d.text))}});
  // A path may be any bytes; JSON is UTF-8.
  return meta.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace

size_t validation_begin(std::string_view text, double fraction) {
  const auto wanted = static_cast<size_t>(std::llround(static_cast<double>(text.size()) * fraction));
  if (wanted == 0) return text.size();
  size_t exact = text.size() - std::min(wanted, text.size());
  const size_t near = wanted / 10;
  const size_t low = exact - std::min(near, exact), high = exact + near;
  for (const std::string_view mark : {"\n\n", "\n"}) {
    const size_t place = nearest_after(text, mark, low, exact, high);
    if (place != std::string_view::npos) return place;
  }
  while (exact > 0 && (static_cast<unsigned char>(text[exact]) & 0xC0) == 0x80) --exact;
  return exact;
}

std::vector<uint16_t> encode_documents(const Tokenizer& tokenizer,
                                       std::span<const std::string_view> documents, ThreadPool& pool) {
  require(tokenizer.eot() >= 0, "the tokenizer has no special token {}, which ends every document",
          kEndOfText);
  require(tokenizer.vocab_size() <= kMaxVocabSize,
          "{} tokens are too many; token files hold 16 bits, at most {}", tokenizer.vocab_size(),
          kMaxVocabSize);
  struct Part {
    std::string_view text;
    bool ends_document;
    std::vector<int32_t> ids;
  };
  std::vector<Part> parts;
  for (const std::string_view document : documents) {
    for (const std::string_view part : split_between_pieces(document, kPartBytes))
      parts.push_back({part, false, {}});
    parts.push_back({{}, true, {}});
  }
  pool.parallel_for(static_cast<int64_t>(parts.size()),
                    [&](int64_t i, int) { parts[i].ids = tokenizer.encode(parts[i].text); });
  std::vector<uint16_t> tokens;
  for (const Part& part : parts) {
    tokens.insert(tokens.end(), part.ids.begin(), part.ids.end());
    if (part.ends_document) tokens.push_back(static_cast<uint16_t>(tokenizer.eot()));
  }
  return tokens;
}

CorpusReport build_corpus(const CorpusOptions& options, ThreadPool& pool) {
  const std::vector<Document> documents = read_documents(options.texts);
  make_directories(options.directory);  // before the long work, so that a wrong path is known at once
  CorpusReport report;
  std::vector<std::string_view> train, validation;
  for (const Document& d : documents) {
    const std::string_view text = d.text;
    const size_t cut = validation_begin(text, options.validation);
    require(cut > 0 && (cut < text.size() || options.validation == 0),
            "'{}' has {} bytes, too few to keep {} of it for validation; use --val 0 or more text", d.name,
            text.size(), options.validation);
    train.push_back(text.substr(0, cut));
    validation.push_back(text.substr(cut));
    report.bytes += static_cast<int64_t>(text.size());
  }

  auto start = std::chrono::steady_clock::now();
  const Tokenizer tokenizer = make_tokenizer(options, train, pool);
  report.vocab_size = tokenizer.vocab_size();
  report.training_seconds = seconds_since(start);

  const auto write_tokens = [&](const char* name, std::span<const std::string_view> texts) {
    start = std::chrono::steady_clock::now();
    const std::vector<uint16_t> tokens = encode_documents(tokenizer, texts, pool);
    report.encoding_seconds += seconds_since(start);
    const auto bytes = std::as_bytes(std::span(tokens));
    write_file(options.directory / name, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    EncodedFile& file = report.files.emplace_back();
    file.name = name;
    for (const std::string_view text : texts) file.bytes += static_cast<int64_t>(text.size());
    file.tokens = static_cast<int64_t>(tokens.size());
    file.sha256 = sha256(bytes);
  };
  write_tokens("train.bin", train);
  if (options.validation > 0) {
    write_tokens("val.bin", validation);
  } else {
    // An old val.bin would be of another vocabulary, and its losses nonsense.
    std::error_code ignored;
    fs::remove(options.directory / "val.bin", ignored);
  }
  save_tokenizer(tokenizer, options.directory / "tokenizer.json");
  const std::string tokenizer_sha256 = sha256(MappedFile(options.directory / "tokenizer.json").bytes());
  write_file(options.directory / "meta.json", describe(report, documents, tokenizer, tokenizer_sha256));
  return report;
}

}  // namespace topolm
