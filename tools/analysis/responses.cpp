#include "tools/analysis/responses.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "engine/error.h"
#include "engine/safetensors.h"
#include "tokenizer/tokenizer_files.h"

namespace topolm {

namespace {

constexpr int64_t kCompatBatch = 12;  // of the published code

// The CPU multiplies very few rows as in decoding, with other rounding: a batch has at least so many, or what
// comes of a short text would depend, in the last bit, on how many came with it.
constexpr int64_t kLeastRows = 8;

/// The beginning of a text, for a sentence about it.
std::string quote(const std::string& text) {
  size_t end = 60;
  if (text.size() <= end) return fmt::format("'{}'", text);
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;  // no half characters
  return fmt::format("'{}...'", text.substr(0, end));
}

fs::path find_subject(const fs::path& path) {
  const auto found = find_checkpoint(path);
  require(found.has_value(), "there is no model in '{}'; train one with ./train_topolm DATA.bin --out {}",
          path.string(), path.string());
  require(fs::exists(*found / "tokenizer.json"),
          "'{}' has no tokenizer.json, so no text can be read to it; put the one it was trained with there",
          found->string());
  return *found;
}

/// Rows [begin, begin + count) of a matrix.
template <class T>
std::span<T> part(std::span<T> matrix, int64_t begin, int64_t count, int64_t cols) {
  return matrix.subspan(static_cast<size_t>(begin * cols), static_cast<size_t>(count * cols));
}

void mean_of_rows(std::span<float> mean, std::span<const float> rows) {
  std::vector<double> sums(mean.size());
  for (size_t i = 0; i < rows.size(); i += sums.size())
    for (size_t unit = 0; unit < sums.size(); ++unit) sums[unit] += rows[i + unit];
  const auto count = static_cast<double>(rows.size() / mean.size());
  std::transform(sums.begin(), sums.end(), mean.begin(),
                 [&](double x) { return static_cast<float>(x / count); });
}

void write_npy(const fs::path& path, const Responses& r) {
  static_assert(std::endian::native == std::endian::little, "the header promises little-endian numbers");
  constexpr std::string_view kMagic("\x93NUMPY\x01\x00", 8);
  std::string header = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}, {}), }}",
                                   r.texts, r.sites, r.units);
  // Data begin at a multiple of 64 bytes: behind magic, the header's length in two bytes, and the header.
  const size_t before = kMagic.size() + 2, end = (before + header.size() + 1 + 63) / 64 * 64;
  header.resize(end - before - 1, ' ');
  header += '\n';
  const auto length = static_cast<uint16_t>(header.size());
  OutputFile file(path);
  file.write(kMagic);
  file.write(&length, 2);
  file.write(header);
  file.write(r.values.data(), r.values.size() * sizeof(float));
  file.commit();
}

void write_site_tensors(const fs::path& path, const Responses& r) {
  std::vector<std::vector<float>> sites(static_cast<size_t>(r.sites));
  std::vector<HostTensor> tensors;
  for (int64_t site = 0; site < r.sites; ++site) {
    std::vector<float>& values = sites[static_cast<size_t>(site)];
    for (int64_t text = 0; text < r.texts; ++text) {
      const auto of = r.of(text, site);
      values.insert(values.end(), of.begin(), of.end());
    }
    tensors.push_back(
        {site_name(static_cast<int>(site)), DType::f32, Shape{r.texts, r.units}, values.data()});
  }
  write_safetensors(path, tensors);
}

}  // namespace

Subject::Subject(Kernels& kernels, const fs::path& checkpoint, int64_t rows)
    : checkpoint_(find_subject(checkpoint)),
      rows_(rows),
      tokenizer_(load_tokenizer(checkpoint_ / "tokenizer.json")) {
  require(rows > 0, "a batch of {} tokens has none", rows);
  const ModelConfig config = load_config(checkpoint_);
  require(tokenizer_.vocab_size() <= config.vocab_size,
          "the tokenizer.json of '{}' has {} tokens, but the model knows {}; put the one it was trained with "
          "there",
          checkpoint_.string(), tokenizer_.vocab_size(), config.vocab_size);
  const int64_t most = std::max<int64_t>({rows, config.block_size, 2 * kLeastRows});
  network_ =
      std::make_unique<TopoLM>(kernels, config, load_sheets(checkpoint_, config), most, 1, DType::f32, false);
  load_weights(checkpoint_, config, kernels.device(), network_->weights());
}

std::vector<int32_t> Subject::encode(const std::string& text) const {
  require(!text.empty(), "a text without a single character has no tokens for '{}' to respond to; remove it",
          checkpoint_.string());
  std::vector<int32_t> tokens = tokenizer_.encode(text);
  require(std::ssize(tokens) <= config().block_size,
          "{} has {} tokens, more than the {} of the context of '{}'; shorten it", quote(text), tokens.size(),
          config().block_size, checkpoint_.string());
  return tokens;
}

void Subject::run(std::span<const std::vector<int32_t>> sequences,
                  const std::function<void(std::span<const Sequence>)>& visit,
                  std::optional<int64_t> in_order) {
  for (size_t i = 0; i < sequences.size(); ++i) {
    const std::vector<int32_t>& s = sequences[i];
    require(!s.empty() && std::ssize(s) <= config().block_size,
            "sequence {} has {} tokens; it needs 1 to {}, the context of '{}'", i, s.size(),
            config().block_size, checkpoint_.string());
    for (const int32_t id : s)
      require(id >= 0 && id < config().vocab_size, "token {} is not in the vocabulary of '{}', which has {}",
              id, checkpoint_.string(), config().vocab_size);
  }
  const auto length = [&](size_t i) { return std::ssize(sequences[i]); };
  std::vector<size_t> order(sequences.size());
  std::iota(order.begin(), order.end(), size_t{0});
  if (!in_order)
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return length(a) < length(b); });
  for (size_t begin = 0, end; begin < order.size(); begin = end) {
    end = begin + 1;
    const auto another = [&] {
      const auto count = static_cast<int64_t>(end - begin) + 1;
      return in_order ? count <= *in_order : count * length(order[end]) <= rows_;
    };
    while (end < order.size() && another()) ++end;
    run_batch(sequences, std::span(order).subspan(begin, end - begin), in_order.has_value(), visit);
  }
}

/// `members` of the sequences, padded to the longest of them, in as many parts as the memory needs.
void Subject::run_batch(std::span<const std::vector<int32_t>> sequences, std::span<const size_t> members,
                        bool padding_is_text, const std::function<void(std::span<const Sequence>)>& visit) {
  int64_t time = 0;
  for (const size_t i : members) time = std::max(time, std::ssize(sequences[i]));
  const auto most = static_cast<size_t>(std::max<int64_t>(1, rows_ / time));
  for (size_t begin = 0; begin < members.size(); begin += most) {
    const auto part = members.subspan(begin, std::min(most, members.size() - begin));
    const int64_t count = std::max(std::ssize(part), ceil_div(kLeastRows, time));
    std::vector<int32_t> tokens(static_cast<size_t>(count * time), std::max(tokenizer_.eot(), 0));
    std::vector<int32_t> targets(tokens.size(), -1);
    std::vector<Sequence> batch;
    for (const size_t i : part) {
      const std::vector<int32_t>& s = sequences[i];
      const int64_t row = std::ssize(batch) * time;
      std::copy(s.begin(), s.end(), tokens.begin() + row);
      const int64_t text = padding_is_text ? time : std::ssize(s);
      std::copy_n(tokens.begin() + row + 1, text - 1, targets.begin() + row);
      batch.push_back({i, row, std::ssize(s), time});
    }
    network_->set_batch(count, time, tokens, targets);
    network_->run_network();
    visit(batch);
  }
}

std::vector<float> Subject::activations(int site) const {
  const Tensor rows = network_->site(site);
  std::vector<float> values(static_cast<size_t>(rows.elements()));
  network_->kernels().device().download(values.data(), rows);
  return values;
}

Responses record_responses(Subject& subject, std::span<const std::string> texts, Pooling pooling) {
  std::vector<std::vector<int32_t>> sequences;
  for (const std::string& text : texts) sequences.push_back(subject.encode(text));
  const ModelConfig& config = subject.config();
  Responses responses{std::ssize(texts), config.sites(), config.n_embd, {}};
  responses.values.resize(texts.size() * static_cast<size_t>(responses.sites * responses.units));
  const auto pool = [&](std::span<const Subject::Sequence> batch) {
    for (int site = 0; site < config.sites(); ++site) {
      const std::vector<float> rows = subject.activations(site);
      for (const Subject::Sequence& s : batch) {
        const int64_t end = s.row + (pooling == Pooling::compat ? s.time : s.tokens);
        const int64_t begin = pooling == Pooling::last ? end - 1 : s.row;
        const int64_t place = static_cast<int64_t>(s.index) * responses.sites + site;
        mean_of_rows(part(std::span(responses.values), place, 1, responses.units),
                     part(std::span<const float>(rows), begin, end - begin, responses.units));
      }
    }
  };
  subject.run(sequences, pool, pooling == Pooling::compat ? std::optional(kCompatBatch) : std::nullopt);
  require(
      std::all_of(responses.values.begin(), responses.values.end(), [](float x) { return std::isfinite(x); }),
      "the activations of '{}' are not finite; the model is damaged", subject.checkpoint().string());
  return responses;
}

void write_responses(const fs::path& path, const Responses& responses) {
  const fs::path extension = path.extension();
  require(extension == ".npy" || extension == ".safetensors",
          "'{}' says no format that responses are written in; end it with .npy or .safetensors",
          path.string());
  if (extension == ".npy")
    write_npy(path, responses);
  else
    write_site_tensors(path, responses);
}

}  // namespace topolm
