// Hugging Face's tokenizer.json and the older pair vocab.json + merges.txt, which is also GPT-2's own. Both
// write tokens in the byte alphabet (byte_alphabet.h).
#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/tokenizer_files.h"

namespace topolm {

namespace {

using Json = nlohmann::json;
using Ids = std::unordered_map<std::string, int32_t>;  // by the token as it is written in the file

Json parse(const fs::path& path) {
  const MappedFile file(path);
  const auto* begin = reinterpret_cast<const char*>(file.bytes().data());
  try {
    return Json::parse(begin, begin + file.bytes().size());
  } catch (const Json::parse_error& e) {
    fail("'{}' is not JSON from byte {} on; it may have been cut short: fetch or write it again",
         path.string(), e.byte);
  }
}

/// Puts the vocabulary under construction together: tokens by id, with no hole and nothing twice.
class Vocabulary {
 public:
  explicit Vocabulary(const fs::path& path) : name_(path.string()) {}

  /// A token that stands for text, written in the byte alphabet. Specials must have been added before.
  void add(const std::string& written, const Json& id) {
    std::optional<std::string>& token = slot(written, id);
    if (token && token == written) return;  // GPT-2's special token stands in the vocabulary as well
    require(!token, "'{}': id {} belongs to two tokens, one of them '{}'", name_, ids_[written], written);
    token = from_byte_alphabet(written);
    require(
        token.has_value(),
        "'{}': token '{}' is not written in GPT-2's byte alphabet; only byte-level vocabularies can be read",
        name_, written);
  }

  /// A special token, by its name.
  void add_special(const std::string& name, const Json& id) {
    std::optional<std::string>& token = slot(name, id);
    require(!token, "'{}': id {} belongs to two added tokens, one of them '{}'", name_, ids_[name], name);
    token = name;
    specials_.push_back(ids_[name]);
  }

  void add_merge(const std::string& left, const std::string& right) {
    merges_.push_back({id_of(left), id_of(right), id_of(left + right)});
  }

  Tokenizer finish() && {
    std::vector<std::string> tokens;
    for (auto& token : tokens_) {
      require(token.has_value(),
              "'{}': no token has id {}, although the highest is {}; ids must be contiguous", name_,
              tokens.size(), tokens_.size() - 1);
      tokens.push_back(*std::move(token));
    }
    try {
      return Tokenizer(std::move(tokens), std::move(merges_), std::move(specials_));
    } catch (const Error& e) {
      fail("'{}': {}", name_, e.what());
    }
  }

 private:
  static constexpr int32_t kMaxId = 1 << 24;

  std::optional<std::string>& slot(const std::string& written, const Json& id) {
    // Ids are bounded, so that a foreign number in the file does not become an allocation of gigabytes.
    if (!id.is_number_integer() || id < 0 || id >= kMaxId)
      fail("'{}': token '{}' has id {}, not a number from 0 to {}", name_, written, id.dump(), kMaxId - 1);
    const auto i = id.get<size_t>();
    if (i >= tokens_.size()) tokens_.resize(i + 1);
    ids_[written] = static_cast<int32_t>(i);
    return tokens_[i];
  }

  int32_t id_of(const std::string& written) const {
    const auto found = ids_.find(written);
    require(found != ids_.end(), "'{}': merge {} needs the token '{}', which is not in the vocabulary", name_,
            merges_.size() + 1, written);
    return found->second;
  }

  const std::string name_;
  std::vector<std::optional<std::string>> tokens_;
  Ids ids_;
  std::vector<int32_t> specials_;
  std::vector<Merge> merges_;
};

/// Refuses a setting that would make other tokens than ours: a wrong token is worse than no token.
void check_setting(const fs::path& path, const Json& object, const char* name, const Json& ours,
                   const char* where) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null() || *found == ours) return;
  fail("'{}': {}{} is {}; this tokenizer only does {}", path.string(), where, name, found->dump(),
       ours.dump());
}

void check_settings(const fs::path& path, const Json& file, const Json& model) {
  check_setting(path, file, "normalizer", nullptr, "");
  const Json pre = file.value("pre_tokenizer", Json());
  require(pre.is_object() && pre.value("type", Json()) == "ByteLevel",
          "'{}': pre_tokenizer is {}; this tokenizer only does ByteLevel, which is GPT-2's", path.string(),
          pre.is_object() ? pre.value("type", Json()).dump() : pre.dump());
  check_setting(path, pre, "add_prefix_space", false, "pre_tokenizer.");
  check_setting(path, pre, "use_regex", true, "pre_tokenizer.");
  check_setting(path, model, "type", "BPE", "model.");
  check_setting(path, model, "dropout", nullptr, "model.");
  check_setting(path, model, "continuing_subword_prefix", "", "model.");
  check_setting(path, model, "end_of_word_suffix", "", "model.");
  check_setting(path, model, "byte_fallback", false, "model.");
  check_setting(path, model, "ignore_merges", false, "model.");
}

void add_special(Vocabulary& vocabulary, const fs::path& path, const Json& added) {
  require(added.is_object() && added.value("content", Json()).is_string(),
          "'{}': an entry of added_tokens is {}, not an object with a content", path.string(), added.dump());
  check_setting(path, added, "special", true, "added_tokens: ");
  for (const char* setting : {"single_word", "lstrip", "rstrip"})
    check_setting(path, added, setting, false, "added_tokens: ");
  vocabulary.add_special(added["content"], added.value("id", Json()));
}

Tokenizer build_from_json(const fs::path& path, const Json& file) {
  const Json model = file.is_object() ? file.value("model", Json()) : Json();
  require(model.is_object() && model.value("vocab", Json()).is_object() &&
              model.value("merges", Json()).is_array(),
          "'{}' is not a tokenizer.json of a BPE model: it has no model with vocab and merges",
          path.string());
  check_settings(path, file, model);

  Vocabulary vocabulary(path);
  for (const Json& added : file.value("added_tokens", Json::array())) add_special(vocabulary, path, added);
  for (const auto& [token, id] : model["vocab"].items()) vocabulary.add(token, id);
  for (const Json& merge : model["merges"]) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      vocabulary.add_merge(merge[0], merge[1]);
      continue;
    }
    const std::string text = merge.is_string() ? merge.get<std::string>() : "";
    const size_t space = text.find(' ');  // the byte alphabet has no space, so there is one way to cut
    if (space == std::string::npos) fail("'{}': a merge is {}, not two tokens", path.string(), merge.dump());
    vocabulary.add_merge(text.substr(0, space), text.substr(space + 1));
  }
  return std::move(vocabulary).finish();
}

}  // namespace

Tokenizer read_tokenizer_json(const fs::path& path) { return build_from_json(path, parse(path)); }

Tokenizer read_vocab_and_merges(const fs::path& vocab, const fs::path& merges) {
  const Json json = parse(vocab);
  require(json.is_object() && !json.value("model", Json()).is_object(),
          "'{}' is not a vocabulary: a JSON object from token to id is needed", vocab.string());
  Vocabulary vocabulary(vocab);
  if (const auto eot = json.find(kEndOfText); eot != json.end())
    vocabulary.add_special(std::string(kEndOfText), *eot);
  for (const auto& [token, id] : json.items()) vocabulary.add(token, id);

  const std::string text = read_file(merges);
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty() || (number == 0 && line.starts_with("#version"))) continue;
    const size_t space = line.find(' ');
    require(space != std::string::npos && line.find(' ', space + 1) == std::string::npos,
            "'{}', line {}: '{}' is not two tokens", merges.string(), number + 1, line);
    vocabulary.add_merge(line.substr(0, space), line.substr(space + 1));
  }
  return std::move(vocabulary).finish();
}

void save_tokenizer(const Tokenizer& tokenizer, const fs::path& path) {
  // Written by hand, one token a line: people look into this file, and a JSON library that keeps the order of
  // 50 000 keys is slow.
  const auto quoted = [](const std::string& text) {
    return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  const auto is_special = [&](int32_t id) {
    return std::binary_search(tokenizer.specials().begin(), tokenizer.specials().end(), id);
  };
  std::string added, vocab, merges;
  for (const int32_t id : tokenizer.specials())
    added += fmt::format(
        "{}\n    {{\"id\": {}, \"content\": {}, \"single_word\": false, \"lstrip\": false, \"rstrip\": "
        "false, "
        "\"normalized\": false, \"special\": true}}",
        added.empty() ? "" : ",", id, quoted(tokenizer.token(id)));
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string& bytes = tokenizer.token(id);
    vocab += fmt::format("{}\n      {}: {}", id == 0 ? "" : ",",
                         quoted(is_special(id) ? bytes : to_byte_alphabet(bytes)), id);
  }
  for (const Merge& merge : tokenizer.merges())
    merges += fmt::format("{}\n      {}", merges.empty() ? "" : ",",
                          quoted(to_byte_alphabet(tokenizer.token(merge.left)) + " " +
                                 to_byte_alphabet(tokenizer.token(merge.right))));
  write_file(path, fmt::format(R"({{
  "version": "1.0",
  "truncation": null,
  "padding": null,
  "added_tokens": [{}
  ],
  "normalizer": null,
  "pre_tokenizer": {{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}},
  "post_processor": {{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true}},
  "decoder": {{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}},
  "model": {{
    "type": "BPE",
    "dropout": null,
    "unk_token": null,
    "continuing_subword_prefix": null,
    "end_of_word_suffix": null,
    "fuse_unk": false,
    "byte_fallback": false,
    "ignore_merges": false,
    "vocab": {{{}
    }},
    "merges": [{}
    ]
  }}
}}
)",
                               added, vocab, merges));
}

}  // namespace topolm
