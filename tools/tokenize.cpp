// tokenize: text files -> tokenizer.json, train.bin, val.bin, meta.json.
#include "engine/parallel.h"
#include "tokenizer/bpe_trainer.h"
#include "tokenizer/corpus.h"
#include "tools/main.h"

using namespace topolm;

namespace {

void print_report(const CorpusOptions& options, const CorpusReport& report) {
  fmt::print("text        {} bytes in {} file{}\n", report.bytes, options.texts.size(),
             options.texts.size() == 1 ? "" : "s");
  if (!options.tokenizer.empty()) {
    fmt::print("vocabulary  {} tokens, from {}\n", report.vocab_size, options.tokenizer);
  } else {
    fmt::print("vocabulary  {} tokens, trained on the train part in {:.2f} s\n", report.vocab_size,
               report.training_seconds);
    if (report.vocab_size < options.vocab_size)
      fmt::print("            (not the {} asked for: no further pair occurs twice in this text)\n",
                 options.vocab_size);
  }
  for (const EncodedFile& file : report.files)
    fmt::print("{:<11} {} tokens of {} bytes, {:.2f} bytes/token\n", file.name, file.tokens, file.bytes,
               static_cast<double>(file.bytes) / static_cast<double>(file.tokens));
  fmt::print("encoded at  {:.1f} MB/s\n", static_cast<double>(report.bytes) / 1e6 / report.encoding_seconds);
  fmt::print("written to  {}\n", options.directory.string());
}

}  // namespace

int main(int argc, char** argv) {
  CorpusOptions options;
  int threads = 0;
  CLI::App app("Turns text into the token files and the tokenizer that train_topolm reads.", "tokenize");
  app.add_option("TEXT", options.texts, "text files, one document each; - is standard input")->required();
  app.add_option("-o,--output", options.directory, "directory to write into")->required();
  auto* size = app.add_option("--vocab-size", options.vocab_size, "tokens of the vocabulary to train")
                   ->check(CLI::Range(kMinVocabSize, 65536))
                   ->capture_default_str();
  app.add_option(
         "--tokenizer", options.tokenizer,
         "use this tokenizer instead: tokenizer.json, vocab.json + merges.txt, .tiktoken, or a directory")
      ->excludes(size);
  app.add_option("--val", options.validation, "part of each document to keep for validation, at its end")
      ->check(CLI::Range(0.0, 0.9))
      ->capture_default_str();
  app.add_option("--threads", threads, "threads; 0 is one a CPU")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  return run_main(app, argc, argv, [&] {
    ThreadPool pool(threads);
    print_report(options, build_corpus(options, pool));
  });
}
