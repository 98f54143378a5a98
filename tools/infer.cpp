// infer: a prompt -> its continuation, token by token.
#include <chrono>
#include <iostream>
#include <iterator>

#include "engine/interrupt.h"
#include "engine/progress.h"
#include "model/checkpoint.h"
#include "model/generator.h"
#include "tokenizer/tokenizer_files.h"
#include "tools/intervention_flags.h"
#include "tools/main.h"

using namespace topolm;

namespace {

struct Options {
  std::string prompt, model = "models/topolm", dtype = "fp32", weights = "dtype";
  int64_t tokens = 200;
  int samples = 1;
  uint64_t seed = 1337;
  bool interactive = false;
  Sampling sampling;
  InterventionFlags interventions;
  DeviceOptions device;
};

/// Bytes of tokens on their way to the screen: what may be the first bytes of a longer character waits.
class Utf8Stream {
 public:
  void write(std::string_view bytes) {
    pending_ += bytes;
    const size_t whole = complete_prefix();
    std::fwrite(pending_.data(), 1, whole, stdout);
    std::fflush(stdout);
    pending_.erase(0, whole);
  }
  void finish() {
    std::fwrite(pending_.data(), 1, pending_.size(), stdout);
    std::fflush(stdout);
    pending_.clear();
  }

 private:
  size_t complete_prefix() const {
    for (size_t back = 1; back <= std::min<size_t>(3, pending_.size()); ++back) {
      const auto byte = static_cast<unsigned char>(pending_[pending_.size() - back]);
      if ((byte & 0xC0) == 0x80) continue;  // inside a character
      const size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
      return length > back ? pending_.size() - back : pending_.size();
    }
    return pending_.size();
  }
  std::string pending_;
};

struct Statistics {
  int64_t prompt_tokens = 0, tokens = 0;
  double prompt_seconds = 0, seconds = 0;
};

/// Continues `prompt`, writing as it goes. The stream of random numbers is that of (seed, sample).
Statistics generate(Generator& generator, const Tokenizer& tokenizer, const Options& o,
                    const std::string& prompt, int sample_index) {
  using Clock = std::chrono::steady_clock;
  Random random(o.seed, Random::Purpose::sampling, static_cast<uint32_t>(sample_index));
  std::vector<int32_t> ids = tokenizer.encode(prompt);
  if (ids.empty()) {
    require(tokenizer.eot() >= 0, "an empty prompt needs a tokenizer with <|endoftext|>; give some text");
    ids = {tokenizer.eot()};
  }
  Statistics s;
  s.prompt_tokens = std::ssize(ids);
  const auto start = Clock::now();
  // The head may have entries that pad the vocabulary: they are never drawn.
  const int64_t known = std::min(tokenizer.vocab_size(), generator.config().vocab_size);
  generator.reset();
  generator.append(ids);
  generator.kernels().device().synchronize();
  const auto ready = Clock::now();
  s.prompt_seconds = std::chrono::duration<double>(ready - start).count();

  Utf8Stream out;
  out.write(prompt);
  while (s.tokens < o.tokens && !interrupted()) {
    const int32_t id = generator.next(o.sampling, random.uniform(), known);
    ++s.tokens;
    if (id == tokenizer.eot()) break;
    out.write(tokenizer.token(id));
    if (s.tokens < o.tokens) generator.append({&id, 1});
  }
  out.finish();
  fmt::print("\n");
  std::fflush(stdout);
  s.seconds = std::chrono::duration<double>(Clock::now() - ready).count();
  return s;
}

void report(const Statistics& s) {
  fmt::print(stderr, "[{} prompt tokens in {}; {} tokens in {}, {} tok/s]\n", s.prompt_tokens,
             human_duration(s.prompt_seconds), s.tokens, human_duration(s.seconds),
             human_count(s.seconds > 0 ? static_cast<double>(s.tokens) / s.seconds : 0));
}

fs::path find_model(const std::string& path) {
  const auto found = find_checkpoint(path);
  require(found.has_value(),
          "there is no model in '{}'; train one with ./train_topolm DATA.bin, see one with make demo, or "
          "name one with "
          "--model DIR",
          path);
  return *found;
}

void run(const Options& o) {
  o.sampling.check();
  const fs::path checkpoint = find_model(o.model);
  require(fs::exists(checkpoint / "tokenizer.json"),
          "'{}' has no tokenizer.json, so its tokens have no text; put the one it was trained with there",
          checkpoint.string());
  const Tokenizer tokenizer = load_tokenizer(checkpoint / "tokenizer.json");
  std::vector<Intervention> interventions;
  if (o.interventions.given())
    interventions = o.interventions.read(load_sheets(checkpoint, load_config(checkpoint)));
  const auto kernels = make_kernels(o.device);
  DType dtype = DType::f32;
  parse_word(o.dtype, dtype);
  Generator generator(*kernels, checkpoint, dtype,
                      {.int8 = o.weights == "int8", .interventions = interventions});
  fmt::print(stderr, "[{}: {} parameters, {}; {}]\n", checkpoint.string(),
             human_count(static_cast<double>(generator.config().parameters())),
             o.weights == "int8" ? o.dtype + ", int8 weights" : o.dtype, kernels->device().description());

  const auto answer = [&](const std::string& prompt) {
    const InterruptGuard guard;  // Ctrl-C ends the text, not the program's manners
    for (int i = 0; i < o.samples && !interrupted(); ++i) {
      if (i > 0) fmt::print("----\n");
      report(generate(generator, tokenizer, o, prompt, i));
    }
    return interrupted();
  };
  bool stopped = false;
  if (o.interactive) {
    fmt::print(stderr, "[a line is a prompt; Ctrl-D ends]\n");
    for (std::string line; fmt::print(stderr, "> "), std::getline(std::cin, line);) answer(line);
    fmt::print(stderr, "\n");
  } else if (o.prompt == "-") {
    stopped = answer({std::istreambuf_iterator<char>(std::cin), {}});
  } else {
    stopped = answer(o.prompt);
  }
  if (stopped) throw Interrupted("stopped before the end of the text");
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app("Continues a prompt with a trained TopoLM.", "infer");
  auto* prompt = app.add_option("PROMPT", o.prompt, "text to continue; - reads standard input");
  app.add_option("--model", o.model, "a checkpoint, or a directory of checkpoints")->capture_default_str();
  app.add_option("--tokens", o.tokens, "tokens to generate")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--temperature", o.sampling.temperature, "0 takes the most likely token")
      ->capture_default_str();
  app.add_option("--top-k", o.sampling.top_k, "keep the k most likely tokens; 0 keeps all")
      ->capture_default_str();
  app.add_option("--top-p", o.sampling.top_p, "keep the fewest tokens that reach this probability")
      ->capture_default_str();
  app.add_option("--min-p", o.sampling.min_p, "keep tokens this likely relative to the likeliest")
      ->capture_default_str();
  app.add_option("--seed", o.seed, "of the sampling")->capture_default_str();
  app.add_option("--samples", o.samples, "continuations to write")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--interactive", o.interactive, "read prompts line by line")->excludes(prompt);
  o.interventions.add_to(app);
  app.add_option("--dtype", o.dtype, "fp32 or bf16 weights and cache")->capture_default_str();
  app.add_option("--weights", o.weights,
                 "what matrices are kept in: int8, which is fastest (CPU only), or the dtype's own format")
      ->check(CLI::IsMember({"dtype", "int8"}))
      ->capture_default_str();
  app.add_option("--device", o.device.name, "auto, cpu, cuda, or simt: CUDA kernels run by the CPU")
      ->capture_default_str();
  app.add_option("--threads", o.device.threads, "threads; 0 is one a CPU")->check(CLI::Range(0, 4096));
  return run_main(app, argc, argv, [&] { run(o); });
}
