#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/random.h"
#include "tests/temporary.h"
#include "tokenizer/bpe_trainer.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/tokenizer.h"

using namespace topolm;
using namespace std::string_literals;
using Pieces = std::vector<std::string>;

namespace {

Pieces pieces_of(std::string_view text) {
  Pieces pieces;
  for_each_piece(text, [&](std::string_view piece) { pieces.emplace_back(piece); });
  return pieces;
}

/// A tokenizer of the 256 bytes (id = byte value) and these merges, each written as two tokens.
Tokenizer small_tokenizer(const std::vector<std::pair<std::string, std::string>>& pairs,
                          const std::vector<std::string>& specials = {}) {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  const auto id_of = [&](const std::string& t) {
    return static_cast<int32_t>(std::find(tokens.begin(), tokens.end(), t) - tokens.begin());
  };
  std::vector<Merge> merges;
  for (const auto& [left, right] : pairs) {
    merges.push_back({id_of(left), id_of(right), static_cast<int32_t>(tokens.size())});
    tokens.push_back(left + right);
  }
  std::vector<int32_t> special_ids;
  for (const std::string& name : specials) {
    special_ids.push_back(static_cast<int32_t>(tokens.size()));
    tokens.push_back(name);
  }
  return Tokenizer(std::move(tokens), std::move(merges), std::move(special_ids));
}

/// Pieces of words, white space of all kinds, broken UTF-8 and plain noise.
std::string random_text(Random& random, uint64_t length) {
  static const std::vector<std::string> kParts = {"the",
                                                  " the",
                                                  "'s",
                                                  "'ll",
                                                  "'",
                                                  " ",
                                                  "  ",
                                                  "\n",
                                                  "\r\n",
                                                  "\t",
                                                  "\v",
                                                  "\f",
                                                  "\0"s,
                                                  "\u0085",
                                                  "\u00a0",
                                                  "\u1680",
                                                  "\u2003",
                                                  "\u2028",
                                                  "\u2029",
                                                  "\u202f",
                                                  "\u205f",
                                                  "\u3000",
                                                  "\u200b",
                                                  "\ufeff",
                                                  "²",
                                                  "½",
                                                  "é",
                                                  "e\u0301",
                                                  "漢字",
                                                  "한국어",
                                                  "😀",
                                                  "<|endoftext|>",
                                                  "\xff",
                                                  "\xc3",
                                                  "\xe2\x80",
                                                  "\xed\xa0\x80",
                                                  "\xf0\x9f\x98",
                                                  "\xc0\x80",
                                                  "\xf5\x80\x80\x80",
                                                  "\x80"};
  std::string text;
  while (text.size() < length) {
    if (random.below(3) == 0) {
      text += static_cast<char>(random.below(256));
    } else {
      text += kParts[random.below(kParts.size())];
    }
  }
  return text;
}

}  // namespace

TEST_CASE("pretokenizer: GPT-2's pattern, case by case") {
  struct Case {
    std::string text;
    Pieces pieces;
  };
  const std::vector<Case> cases = {
      {"", {}},
      {"Hello world", {"Hello", " world"}},
      {"don't we'll they're I've I'm he'd it's",
       {"don", "'t", " we", "'ll", " they", "'re", " I", "'ve", " I", "'m", " he", "'d", " it", "'s"}},
      {"I'LL IT'S", {"I", "'", "LL", " IT", "'", "S"}},  // contractions are of small letters only
      {"'stop 'll", {"'s", "top", " '", "ll"}},          // even where there is none; but not after a space
      {"'", {"'"}},
      {"'r 'v", {"'", "r", " '", "v"}},
      {"!'s", {"!'", "s"}},  // a run of marks takes the apostrophe first
      {"''s", {"''", "s"}},
      {"a  b", {"a", " ", " b"}},  // \s+(?!\S): the last space goes with the word
      {"a   b", {"a", "  ", " b"}},
      {"a ", {"a", " "}},
      {"a   ", {"a", "   "}},
      {"   ", {"   "}},
      {" ", {" "}},
      {"a\nb", {"a", "\n", "b"}},  // " ?" is a plain space: a newline stays alone
      {"a\n\nb", {"a", "\n", "\n", "b"}},
      {"a\n\n\nb", {"a", "\n\n", "\n", "b"}},
      {"a \nb", {"a", " ", "\n", "b"}},
      {"a\n b", {"a", "\n", " b"}},
      {"a\t\tb", {"a", "\t", "\t", "b"}},
      {"a\r\nb\n", {"a", "\r", "\n", "b", "\n"}},
      {"x=1.5, y=22;", {"x", "=", "1", ".", "5", ",", " y", "=", "22", ";"}},
      {"abc123def", {"abc", "123", "def"}},
      {" 42 (ok)", {" 42", " (", "ok", ")"}},
      {"x² ½ Ⅷ ٣", {"x", "²", " ½", " Ⅷ", " ٣"}},  // \p{N} is more than digits
      {"naïve café", {"naïve", " café"}},
      {"e\u0301a", {"e", "\u0301", "a"}},  // a combining mark is no letter
      {"漢字とかな、です", {"漢字とかな", "、", "です"}},
      {"한국 어", {"한국", " 어"}},
      {"hi 😀👍!", {"hi", " 😀👍!"}},
      {"“so”—he", {"“", "so", "”—", "he"}},
      {"a\u00a0b", {"a", "\u00a0", "b"}},  // white space, but not the plain space
      {"a\u00a0\u3000b", {"a", "\u00a0", "\u3000", "b"}},
      {"a \u2028b", {"a", " ", "\u2028", "b"}},
      {"a\u0085b", {"a", "\u0085", "b"}},
      {"a\u200bb", {"a", "\u200b", "b"}},              // zero width, and not White_Space
      {"a\u180e\u180eb", {"a", "\u180e\u180e", "b"}},  // was White_Space once, until Unicode 6.3
      {"a\0b"s, {"a", "\0"s, "b"}},
      {"a\xff\xc3z \x80", {"a", "\xff\xc3", "z", " \x80"}},  // broken UTF-8 is 'other', byte by byte
      {"\xe2\x80", {"\xe2\x80"}},
      {"\xed\xa0\x80", {"\xed\xa0\x80"}},  // a surrogate half
  };
  for (const Case& c : cases) {
    CAPTURE(c.text);
    CHECK(pieces_of(c.text) == c.pieces);
  }
}

TEST_CASE("pretokenizer: parts of a text have the pieces of the whole") {
  Random random(7, Random::Purpose::tests);
  for (int round = 0; round < 100; ++round) {
    const std::string text = random_text(random, random.below(400));
    for (const size_t bytes : {size_t{0}, size_t{1}, size_t{7}, size_t{50}, size_t{1000}}) {
      Pieces joined;
      std::string whole;
      for (const std::string_view part : split_between_pieces(text, bytes)) {
        whole += part;
        for (std::string& piece : pieces_of(part)) joined.push_back(std::move(piece));
      }
      CHECK(whole == text);
      CHECK(joined == pieces_of(text));
    }
  }
}

TEST_CASE("byte alphabet: GPT-2's order and characters") {
  CHECK(byte_order()[0] == '!');
  CHECK(byte_order()[93] == '~');
  CHECK(byte_order()[94] == 0xA1);
  CHECK(byte_order()[187] == 0xFF);
  CHECK(byte_order()[188] == 0);
  CHECK(byte_order()[220] == ' ');
  CHECK(byte_order()[255] == 0xAD);
  CHECK(to_byte_alphabet(" the\n\0\x7f\xad\xff"s) == "ĠtheĊĀġŃÿ");
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  CHECK(from_byte_alphabet(to_byte_alphabet(all)) == all);
  for (const char* foreign : {" ", "▁the", "\u0144", "\xff", "\u00ad"})
    CHECK_FALSE(from_byte_alphabet(foreign));
}

TEST_CASE("tokenizer: a merge list worked out by hand") {
  const Tokenizer t =
      small_tokenizer({{"l", "o"}, {"e", "r"}, {"lo", "w"}, {"low", "er"}, {"a", "a"}, {" ", "lo"}});
  const auto bytes = [&](std::string_view text) {
    Pieces pieces;
    for (const int32_t id : t.encode(text)) pieces.push_back(t.token(id));
    return pieces;
  };
  CHECK(bytes("lower") == Pieces{"lower"});
  CHECK(bytes("lowlo") == Pieces{"low", "lo"});
  CHECK(bytes("slower") == Pieces{"s", "lower"});
  CHECK(bytes(" lower") == Pieces{" ", "lower"});  // "low" has the earlier rank, and leaves no " lo" to merge
  CHECK(bytes(" lost") == Pieces{" lo", "s", "t"});
  CHECK(bytes("lo wer") == Pieces{"lo", " ", "w", "er"});
  CHECK(bytes("aaaaa") == Pieces{"aa", "aa", "a"});  // leftmost first
  CHECK(bytes("") == Pieces{});
  CHECK(t.encode("lower lower") == std::vector<int32_t>{259, ' ', 259});
}

TEST_CASE("tokenizer: the earliest merge wins wherever it stands") {
  const Tokenizer t = small_tokenizer({{"b", "c"}, {"a", "b"}, {"c", "d"}, {"ab", "cd"}});
  CHECK(t.encode("abcd") == std::vector<int32_t>{'a', 256, 'd'});
  CHECK(t.encode("abd") == std::vector<int32_t>{257, 'd'});
}

TEST_CASE("tokenizer: any bytes come back from their tokens") {
  const std::string text =
      "the then they there lower lowest the the then 漢字 漢字 é é 😀😀 2000 2000  \n\n  \n\n the";
  ThreadPool pool(1);
  const std::vector<std::string_view> documents = {text};
  const Tokenizer t = train_bpe(documents, 300, pool);
  Random random(3, Random::Purpose::tests);
  for (int round = 0; round < 500; ++round) {
    const std::string any = random_text(random, random.below(200));
    for (const Specials specials : {Specials::ignore, Specials::recognise}) {
      const std::vector<int32_t> ids = t.encode(any, specials);
      CHECK(t.decode(ids) == any);
    }
  }
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  CHECK(t.decode(t.encode(all)) == all);
}

TEST_CASE("tokenizer: specials only when asked") {
  const Tokenizer t = small_tokenizer({{"<", "|"}}, {"<|endoftext|>", "<|end|>", "<|end|>+"});
  const int32_t eot = 257, end = 258, longer = 259;
  CHECK(t.eot() == eot);
  CHECK(t.specials() == std::vector<int32_t>{eot, end, longer});
  CHECK(t.encode("<|endoftext|>").size() == 12);
  CHECK(t.decode(t.encode("<|endoftext|>")) == "<|endoftext|>");
  CHECK(t.encode("<|endoftext|>", Specials::recognise) == std::vector<int32_t>{eot});
  CHECK(t.encode("a<|end|>b<|end|>+<|endoftext|><|end", Specials::recognise) ==
        std::vector<int32_t>{'a', end, 'b', longer, eot, 256, 'e', 'n', 'd'});
  CHECK(t.encode("a  <|end|>", Specials::recognise) == std::vector<int32_t>{'a', ' ', ' ', end});
  CHECK(t.encode("", Specials::recognise).empty());
  CHECK(t.decode(std::vector<int32_t>{'a', eot}) == "a<|endoftext|>");
  CHECK(small_tokenizer({}).eot() == -1);
}

TEST_CASE("tokenizer: what is not in the vocabulary is an error that says so") {
  const Tokenizer t = small_tokenizer({});
  CHECK(t.vocab_size() == 256);
  CHECK(error_of([&] {
          t.decode(std::vector<int32_t>{'a', 256});
        }) == "token 256 is not in the vocabulary, which has 256 tokens (0 to 255)");
  CHECK_THROWS_AS(t.token(-1), Error);
  CHECK_THROWS_AS(Tokenizer({"a"}, {}, {}), Error);  // bytes are missing
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  tokens.push_back("ab");
  CHECK_THROWS_AS(Tokenizer(tokens, {{'a', 'c', 256}}, {}), Error);  // not what it is made of
  CHECK_THROWS_AS(Tokenizer(tokens, {{'a', 'b', 999}}, {}), Error);
  CHECK_THROWS_AS(Tokenizer(tokens, {}, {257}), Error);
}

TEST_CASE("tokenizer: a megabyte without a space does not take forever") {
  std::vector<std::pair<std::string, std::string>> doubling;
  for (std::string a = "a"; a.size() < 1024; a += a) doubling.emplace_back(a, a);
  const Tokenizer t = small_tokenizer(doubling);
  const auto start = std::chrono::steady_clock::now();
  CHECK(t.encode(std::string(1 << 20, 'a')).size() == 1024);
  const std::string spaces(1 << 20, ' ');
  CHECK(t.decode(t.encode(spaces)) == spaces);
  // n^2 would be hours; the bound leaves room for sanitizers on a busy machine.
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(30));
}
