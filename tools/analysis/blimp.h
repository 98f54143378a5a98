// BLiMP (Warstadt et al., 2020): does the model find the acceptable sentence of a minimal pair likelier?
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tools/analysis/responses.h"

namespace topolm {

struct MinimalPair {
  std::string good, bad, uid, phenomenon;  // sentence_good, sentence_bad, UID, linguistics_term
};

/// A .jsonl file, or all of a directory in order of their names. Throws Error naming file and line.
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
/// correct when good scores strictly less. `compat`: 48 sentences a batch in order, padding scored too
/// (reference T12, E9).
BlimpResult score_blimp(Subject& subject, const std::vector<MinimalPair>& pairs, bool compat = false);

}  // namespace topolm
