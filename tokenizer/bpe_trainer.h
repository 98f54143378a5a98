// Learns a byte-level BPE vocabulary from text (Sennrich et al., 2016, algorithm 1): again and again, the
// pair of neighbouring tokens that is most frequent in the text becomes a token.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "engine/parallel.h"
#include "tokenizer/tokenizer.h"

namespace topolm {

/// The least vocabulary: the 256 bytes and <|endoftext|>.
inline constexpr int32_t kMinVocabSize = 257;

/// A tokenizer trained on `documents`. Ids: first the 256 bytes in GPT-2's order (byte_alphabet.h), then the
/// merged tokens in the order learnt, <|endoftext|> last.
///
/// Among pairs of the same frequency, the one with the smaller left id wins, then the smaller right id; so
/// the result depends on the text alone: not on the threads, nor on the order of the documents. A pair inside
/// a run
/// ("aaa") counts at both places, although only one can be merged.
///
/// A pair that occurs only once is not merged, it would teach nothing but the text itself: from too little
/// text the vocabulary comes out smaller than asked for. Compare vocab_size() and tell the user. Throws Error
/// when `vocab_size` is less than kMinVocabSize.
Tokenizer train_bpe(std::span<const std::string_view> documents, int32_t vocab_size, ThreadPool& pool);

}  // namespace topolm
