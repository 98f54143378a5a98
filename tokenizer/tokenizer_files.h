// Tokenizers on disk: what we write (Hugging Face's tokenizer.json) and what we also read (GPT-2's two files
// and tiktoken's rank files). Every function throws Error, one sentence that begins with the file's name,
// when a file is missing, cut short, not of its kind, or asks for something that this tokenizer does not do.
#pragma once

#include <string>

#include "engine/file.h"
#include "tokenizer/tokenizer.h"

namespace topolm {

/// Finds out by looking what `path` is, and reads it:
///   - a tokenizer.json;
///   - vocab.json or merges.txt (GPT-2's own names: encoder.json, vocab.bpe); the other lies beside it;
///   - a rank file of tiktoken (*.tiktoken);
///   - a directory that holds one of these, looked for in this order.
Tokenizer load_tokenizer(const fs::path& path);

/// Writes `path` as a tokenizer.json that Hugging Face's `tokenizers` loads; see
/// https://huggingface.co/docs/tokenizers/api/tokenizer. Throws Error when it cannot be written.
void save_tokenizer(const Tokenizer& tokenizer, const fs::path& path);

/// Reads a tokenizer.json: model BPE on bytes with GPT-2's pattern; merges as "a b" or ["a", "b"]. What
/// stands in `truncation`, `padding`, `post_processor` and `decoder` is not used: they do not change what
/// text is as tokens. Added tokens become specials.
Tokenizer read_tokenizer_json(const fs::path& path);

/// Reads GPT-2's pair of files: a JSON object from token to id, and merges, one a line, in order of rank.
/// <|endoftext|>, if there, becomes special.
Tokenizer read_vocab_and_merges(const fs::path& vocab, const fs::path& merges);

/// Reads a rank file of tiktoken: lines of base64(token), space, rank. Rank is id; the merges are those that
/// build each token from the tokens before it. <|endoftext|> is not in such files: it gets the first free id.
/// A rank file does not say how text is cut; ours is cut as GPT-2 does, so files larger than GPT-2-like ones
/// (cl100k_base, o200k_base) are refused.
Tokenizer read_tiktoken(const fs::path& path);

}  // namespace topolm
