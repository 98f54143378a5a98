#include "tools/analysis/blimp.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string_view>
#include <unordered_map>

#include "engine/error.h"

namespace topolm {

namespace {

constexpr int64_t kCompatBatch = 48;  // of the published code

using Tokens = std::vector<std::vector<int32_t>>;

MinimalPair parse_pair(std::string_view line, const std::string& place) {
  const auto json = nlohmann::json::parse(line, nullptr, false);  // what is not UTF-8 is refused too
  require(json.is_object(), "{} is not a JSON object in UTF-8; BLiMP's files have one a line", place);
  const auto text = [&](const char* field) {
    const auto found = json.find(field);
    require(found != json.end() && found->is_string() && !found->get_ref<const std::string&>().empty(),
            "{} has no text '{}'; a pair has sentence_good, sentence_bad, UID and linguistics_term", place,
            field);
    return found->get<std::string>();
  };
  return {text("sentence_good"), text("sentence_bad"), text("UID"), text("linguistics_term")};
}

void load_file(const fs::path& path, std::vector<MinimalPair>& pairs) {
  const std::string text = read_file(path);
  std::string_view rest = text;
  for (int64_t number = 1; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    pairs.push_back(parse_pair(line, fmt::format("line {} of '{}'", number, path.string())));
  }
}

/// Files of BLiMP in a directory, in order of their names. What unpacking leaves beside them (._NAME) is not.
std::vector<fs::path> list_files(const fs::path& directory) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(directory)) {
    const fs::path& file = entry.path();
    if (file.extension() == ".jsonl" && !file.filename().string().starts_with('.')) files.push_back(file);
  }
  std::sort(files.begin(), files.end());
  require(!files.empty(), "'{}' has no .jsonl files; BLiMP has 67 of them, in its directory 'data'",
          directory.string());
  return files;
}

/// The score of each sequence. Batches `in_order` count their padding.
std::vector<double> surprisals(Subject& subject, const Tokens& sequences,
                               std::optional<int64_t> in_order = {}) {
  std::vector<double> sums(sequences.size());
  const auto add_up = [&](std::span<const Subject::Sequence> batch) {
    if (batch[0].time == 1) return;  // nothing follows a first token
    subject.network().evaluate();
    const std::vector<float> losses = subject.network().token_losses();
    for (const Subject::Sequence& s : batch)  // 0 where there is nothing to tell
      sums[s.index] = std::accumulate(losses.begin() + s.row, losses.begin() + s.row + s.time, 0.0);
  };
  subject.run(sequences, add_up, in_order);
  require(std::all_of(sums.begin(), sums.end(), [](double x) { return std::isfinite(x); }),
          "the losses of '{}' are not finite; the model is damaged", subject.checkpoint().string());
  return sums;
}

/// Scores of the good and the bad sentence of each pair.
using Scores = std::pair<std::vector<double>, std::vector<double>>;

/// Many a sentence stands in several pairs and is read once.
Scores score_sentences(Subject& subject, const std::vector<MinimalPair>& pairs) {
  std::unordered_map<std::string_view, size_t> places;
  Tokens sequences;
  const auto place_of = [&](const std::string& sentence) {
    const auto [found, is_new] = places.try_emplace(sentence, sequences.size());
    if (is_new) sequences.push_back(subject.encode(sentence));
    return found->second;
  };
  std::vector<size_t> good, bad;
  for (const MinimalPair& pair : pairs) {
    good.push_back(place_of(pair.good));
    bad.push_back(place_of(pair.bad));
  }
  const std::vector<double> sums = surprisals(subject, sequences);
  const auto sums_at = [&](const std::vector<size_t>& indices) {
    std::vector<double> values;
    for (const size_t i : indices) values.push_back(sums[i]);
    return values;
  };
  return {sums_at(good), sums_at(bad)};
}

Scores score_padded(Subject& subject, const std::vector<MinimalPair>& pairs) {
  Tokens good, bad;
  for (const MinimalPair& pair : pairs) {
    good.push_back(subject.encode(pair.good));
    bad.push_back(subject.encode(pair.bad));
  }
  return {surprisals(subject, good, kCompatBatch), surprisals(subject, bad, kCompatBatch)};
}

}  // namespace

std::vector<MinimalPair> load_blimp(const fs::path& path) {
  std::vector<MinimalPair> pairs;
  std::error_code ignored;
  if (fs::is_directory(path, ignored))
    for (const fs::path& file : list_files(path)) load_file(file, pairs);
  else
    load_file(path, pairs);
  require(!pairs.empty(), "'{}' has no minimal pairs; give a .jsonl file of BLiMP, or the directory of them",
          path.string());
  return pairs;
}

BlimpResult score_blimp(Subject& subject, const std::vector<MinimalPair>& pairs, bool compat) {
  const auto [good, bad] = compat ? score_padded(subject, pairs) : score_sentences(subject, pairs);
  BlimpResult result;
  for (size_t i = 0; i < pairs.size(); ++i)
    for (BlimpScore* score :
         {&result.all, &result.by_phenomenon[pairs[i].phenomenon], &result.by_uid[pairs[i].uid]}) {
      ++score->pairs;
      score->correct += good[i] < bad[i];
    }
  return result;
}

}  // namespace topolm
