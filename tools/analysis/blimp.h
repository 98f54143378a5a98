// BLiMP (Warstadt et al., 2020): does the model find the acceptable sentence of a minimal pair likelier? Its
// 67 files of 1000 pairs (github.com/alexwarstadt/blimp, CC-BY 4.0) are the user's to fetch.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tools/analysis/responses.h"

namespace topolm {

struct MinimalPair {
  std::string good, bad, uid, phenomenon;  // sentence_good, sentence_bad, UID, linguistics_term
};

/// A .jsonl file, a pair a line, or all such files of a directory in order of their names. Throws Error
/// naming file and line: what is not JSON or not UTF-8, a field that is missing or empty, no pairs at all.
std::vector<MinimalPair> load_blimp(const fs::path& path);

struct BlimpScore {
  int64_t pairs = 0, correct = 0;
  double accuracy() const { return pairs ? static_cast<double>(correct) / static_cast<double>(pairs) : 0; }
};
struct BlimpResult {
  BlimpScore all;
  std::map<std::string, BlimpScore> by_phenomenon, by_uid;
};

/// A sentence's score is the sum over its tokens but the first of -ln p(token | those before); a pair is
/// correct when good scores strictly less. `compat`: 48 sentences a batch in order, good and bad ones apart,
/// padding scored too, as the published code does (reference T12, E9). Throws Error for a sentence longer
/// than the context, or when the model is damaged.
BlimpResult score_blimp(Subject& subject, const std::vector<MinimalPair>& pairs, bool compat = false);

}  // namespace topolm
