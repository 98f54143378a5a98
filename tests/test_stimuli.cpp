// Reading stimuli, and what is said of bad ones; contrasts. All texts here are of our own making.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>

#include "tests/errors.h"
#include "tests/temporary.h"
#include "tools/analysis/stimuli.h"

namespace topolm {

namespace {

/// "text|condition" of each item.
std::vector<std::string> lines(const StimulusSet& set) {
  std::vector<std::string> all;
  for (const Stimulus& item : set.items) all.push_back(item.text + "|" + item.condition);
  return all;
}

std::vector<std::string> names(const std::vector<Contrast>& contrasts) {
  std::vector<std::string> all;
  for (const Contrast& contrast : contrasts) all.push_back(contrast.name);
  return all;
}

std::string join(const std::vector<std::string>& parts) {
  std::string joined;
  for (const std::string& part : parts) joined += (joined.empty() ? "" : "+") + part;
  return joined;
}

/// A set with two items of each condition.
StimulusSet set_of(const std::vector<std::string>& conditions) {
  StimulusSet set{"some", {}};
  for (const std::string& condition : conditions)
    for (const char* text : {"one", "two"}) set.items.push_back({text, condition});
  return set;
}

using Strings = std::vector<std::string>;

Strings words_of(const std::string& text) {
  std::istringstream in(text);
  Strings words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

/// The texts of a condition.
Strings texts(const StimulusSet& set, const std::string& condition) {
  Strings all;
  for (const Stimulus& item : set.items)
    if (item.condition == condition) all.push_back(item.text);
  return all;
}

/// Every text once, of lower-case letters in words with one space between.
void check_plain(const StimulusSet& set) {
  std::set<std::string> seen;
  for (const Stimulus& item : set.items) {
    CAPTURE(item.text);
    CHECK(seen.insert(item.text).second);
    CHECK(item.text.find_first_not_of("abcdefghijklmnopqrstuvwxyz ") == std::string::npos);
    size_t length = 0;
    for (const std::string& word : words_of(item.text)) length += word.size() + 1;
    CHECK(length == item.text.size() + 1);
  }
}

/// Of the lengths of words of any two conditions, Welch's |t| is below 1.28: p > 0.2.
void check_lengths_balanced(const StimulusSet& set) {
  struct Moments {
    double mean = 0, variance_of_mean = 0;
  };
  std::vector<Moments> conditions;
  for (const auto& [condition, count] : set.conditions()) {
    double sum = 0, squares = 0;
    const auto n = static_cast<double>(count);
    for (const std::string& text : texts(set, condition)) {
      const auto length = static_cast<double>(text.size());
      sum += length, squares += length * length;
    }
    conditions.push_back({sum / n, (squares / n - sum / n * sum / n) / (n - 1)});
  }
  for (const Moments& a : conditions)
    for (const Moments& b : conditions)
      CHECK(std::abs(a.mean - b.mean) <= 1.28 * std::sqrt(a.variance_of_mean + b.variance_of_mean));
}

const std::string kLocalizerHeader =
    "stim1,stim2,stim3,stim4,stim5,stim6,stim7,stim8,stim9,stim10,stim11,stim12,stim13,stim14\n";

}  // namespace

TEST_CASE("stimuli: each format of the published files, and ours, by its header") {
  const TemporaryDirectory directory;
  const auto read = [&](const std::string& csv) {
    return lines(load_stimuli(directory.write("a.csv", csv)));
  };

  CHECK(read("stimulus,condition\nthe old gate,sentence\nvorn,nonword\n") ==
        Strings{"the old gate|sentence", "vorn|nonword"});
  // The index column has no name, and more columns do no harm.
  CHECK(read(",sentence,condition\n0,she shut the door,S\n1,door the shut she,W\n") ==
        Strings{"she shut the door|S", "door the shut she|W"});
  CHECK(read("word,category,class\nspoon,concrete,noun\nponder,abstract,verb\n") ==
        Strings{"spoon|concrete_noun", "ponder|abstract_verb"});
  CHECK(read("run,block,class,category,pair\nodd,0,noun,tool,\"the spoon the ladle\"\n"
             "even,1,verb,hand,to stir to pour\n") ==
        Strings{"the spoon the ladle|noun", "to stir to pour|verb"});
  CHECK(read(kLocalizerHeader + "1,A,B,C,D,E,F,G,H,I,J,K,ÉL,S\n2,LO,b,c,d,e,f,g,h,i,j,k,l,N\n") ==
        Strings{"a b c d e f g h i j k él|S", "lo b c d e f g h i j k l|N"});

  CHECK(lines(load_stimuli(directory.write("lines.txt",
                                           "stimulus,condition\r\n a \"line\", as it is \n"
                                           "the last"))) ==
        Strings{"stimulus,condition|text", "a \"line\", as it is|text", "the last|text"});
  CHECK(lines(parse_stimuli("x", "condition,stimulus\nb,a\n")) == Strings{"a|b"});
}

TEST_CASE("stimuli: quotation marks, commas, newlines of every system, a byte order mark, no last newline") {
  const Strings expected{"a, \"b\" c|x", "d|y"};
  for (const char* csv : {"stimulus,condition\n\"a, \"\"b\"\" c\",x\nd,y\n",
                          "\xEF\xBB\xBFstimulus,condition\r\n\"a, \"\"b\"\" c\",x\r\nd,y\r\n",
                          "\"stimulus\",\"condition\"\n\n\"a, \"\"b\"\" c\" , x \n\n  d,\"y\""}) {
    CAPTURE(csv);
    CHECK(lines(parse_stimuli("x", csv)) == expected);
  }
}

TEST_CASE("stimuli: a set has its file's name, and a directory of files is one set in order of their names") {
  const TemporaryDirectory directory;
  make_directories(directory / "langloc");
  const std::string words = "a,b,c,d,e,f,g,h,i,j,k,l";
  directory.write("langloc/run2.csv", kLocalizerHeader + "1," + words + ",N\n");
  directory.write("langloc/run1.csv", kLocalizerHeader + "1," + words + ",S\n2," + words + ",N\n");
  directory.write("langloc/README.md", "not a stimulus");
  for (const std::string path : {"langloc", "langloc/", "langloc/../langloc/."}) {
    CAPTURE(path);
    const StimulusSet set = load_stimuli(directory / path);
    CHECK(set.name == "langloc");
    REQUIRE(set.items.size() == 3);
    CHECK(set.items[0].condition + set.items[1].condition + set.items[2].condition == "SNN");
    CHECK(set.conditions() == std::map<std::string, int64_t>{{"N", 2}, {"S", 1}});
  }
  CHECK(load_stimuli(directory / "langloc/run2.csv").name == "run2");

  const auto error = [&] { return error_of([&] { load_stimuli(directory / "langloc"); }); };
  directory.write("langloc/run3.csv", "stimulus,condition\na,b\n");
  CHECK(contains(error(), "run1.csv' has stim1,...,stim14, but '"));
  CHECK(contains(error(), "run3.csv' has stimulus,condition; a directory is one set"));
  directory.write("langloc/run3.csv", kLocalizerHeader + "1," + words + ",\n");
  CHECK(contains(error(), "run3.csv', line 2: the stim14 is empty"));
  make_directories(directory / "empty");
  CHECK(contains(error_of([&] { load_stimuli(directory / "empty"); }), "there is no .csv file in '"));
}

TEST_CASE("stimuli: what is wrong is one sentence, with file and line") {
  const auto error = [](const std::string& csv) { return error_of([&] { parse_stimuli("my.csv", csv); }); };
  CHECK(error("text,label\na,b\n") ==
        "'my.csv', line 1: columns are missing; stimuli have stimulus,condition or sentence,condition or "
        "word,category,class or class,category,pair or stim1,...,stim14 (plain text, a stimulus a line, is a "
        "file .txt)");
  CHECK(contains(error("\n\nword,category\na,b\n"), "'my.csv', line 3: columns are missing"));
  CHECK(contains(error("Stimulus,Condition\na,b\n"), "columns are missing"));
  CHECK(error("stimulus,condition\na,b\n\n,b\n") == "'my.csv', line 4: the stimulus is empty");
  CHECK(error("stimulus,condition\n\" \",b\n") == "'my.csv', line 2: the stimulus is empty");
  CHECK(error("stimulus,condition\na,\n") == "'my.csv', line 2: the condition is empty");
  CHECK(error("word,category,class\na,,noun\n") == "'my.csv', line 2: the category is empty");
  CHECK(error("stimulus,condition\na,b\nc\n") ==
        "'my.csv', line 3: the header has 2 fields, this line 1; a field with commas needs quotation marks");
  CHECK(
      contains(error("stimulus,condition\nwell, then,b\n"), "line 2: the header has 2 fields, this line 3"));
  // A field that goes on over lines is counted where its row begins.
  CHECK(contains(error("stimulus,condition\n\"a\nb\nc\",x\n\"d\n\",\n"), "line 5: the condition is empty"));
  CHECK(error("") == "'my.csv' is empty: it has no stimuli");
  CHECK(error("\xEF\xBB\xBF\n") == "'my.csv' is empty: it has no stimuli");
  CHECK(error("stimulus,condition\n\n") == "'my.csv' has no stimuli, only a header");

  for (const char* csv : {"stimulus,condition\na,b\n\"c,d\ne,f\n", "stimulus,condition\na,b\nc \"d\",e\n",
                          "stimulus,condition\na,b\n\"c\" d,e\n"}) {
    CAPTURE(csv);
    CHECK(contains(error(csv), "'my.csv', line 3: quotation marks do not match"));
  }
  // Latin-1, UTF-16, a surrogate, an overlong slash, a character cut off at the end.
  for (const char* bad : {"caf\xE9", "\xFF\xFEs", "\xED\xA0\x80", "\xC0\xAF", "\xE2\x82"}) {
    CAPTURE(bad);
    CHECK(error(std::string("stimulus,condition\na,b\n") + bad + ",b\n") ==
          "'my.csv', line 3: this is not UTF-8; save the file in that encoding");
  }

  const TemporaryDirectory directory;
  const auto load = [&](const std::string& name) {
    return error_of([&] { load_stimuli(directory / name); });
  };
  directory.write("a.txt", "one\n \nthree\n");
  CHECK(contains(load("a.txt"), "a.txt', line 2: the text is empty; each line is a stimulus"));
  directory.write("b.txt", "caf\xE9\n");
  CHECK(contains(load("b.txt"), "b.txt', line 1: this is not UTF-8"));
  directory.write("c.txt", "");
  CHECK(contains(load("c.txt"), "c.txt' is empty: it has no stimuli"));
  directory.write("d.csv", "stimulus,condition\na,\n");
  CHECK(contains(load("d.csv"), "d.csv', line 2: the condition is empty"));
  CHECK(contains(load("none.csv"), "cannot open '"));
}

TEST_CASE("stimuli: the paper's contrasts of each published set and of ours") {
  CHECK(names(default_contrasts(set_of({"S", "N"}))) == Strings{"S-N"});
  CHECK(names(default_contrasts(set_of({"S", "W", "J", "N"}))) ==
        Strings{"S-N", "S-W", "S-J", "W-N", "J-W", "J-N"});
  CHECK(names(default_contrasts(set_of({"noun", "verb"}))) == Strings{"verb-noun"});
  CHECK(names(default_contrasts(set_of({"sentence", "scrambled", "nonword"}))) ==
        Strings{"sentence-nonword", "sentence-scrambled"});
  CHECK(default_contrasts(set_of({"noun", "adjective", "text"})).empty());

  const auto contrasts =
      default_contrasts(set_of({"abstract_noun", "abstract_verb", "concrete_noun", "concrete_verb"}));
  const std::vector<Strings> expected{
      {"noun-verb", "concrete_noun+abstract_noun", "concrete_verb+abstract_verb"},
      {"concrete_noun-concrete_verb", "concrete_noun", "concrete_verb"},
      {"abstract_noun-abstract_verb", "abstract_noun", "abstract_verb"},
      {"abstract-concrete", "abstract_noun+abstract_verb", "concrete_noun+concrete_verb"}};
  REQUIRE(contrasts.size() == expected.size());
  for (size_t i = 0; i < expected.size(); ++i)
    CHECK(Strings{contrasts[i].name, join(contrasts[i].positive), join(contrasts[i].negative)} ==
          expected[i]);

  StimulusSet lonely = set_of({"S", "N"});
  lonely.items.erase(lonely.items.begin());
  CHECK(error_of([&] { default_contrasts(lonely); }) ==
        "the contrast 'S-N' has one item of 'S'; a test needs at least two on each side");
}

TEST_CASE("stimuli: contrasts as one writes them, and what is wrong with others") {
  const StimulusSet set = set_of({"noun", "verb", "non-word", "word"});
  const auto parsed = [&](const std::string& text) {
    const Contrast c = parse_contrast(text, set);
    return Strings{c.name, join(c.positive), join(c.negative)};
  };
  CHECK(parsed("noun-verb") == Strings{"noun-verb", "noun", "verb"});
  CHECK(parsed("noun+verb-word") == Strings{"noun+verb-word", "noun+verb", "word"});
  CHECK(parsed("real=noun+verb-word+non-word") == Strings{"real", "noun+verb", "word+non-word"});
  CHECK(parsed("non-word-word") == Strings{"non-word-word", "non-word", "word"});

  const auto error = [&](const std::string& text) { return error_of([&] { parse_contrast(text, set); }); };
  CHECK(error("noun-adverb") ==
        "'noun-adverb': the stimuli 'some' have no condition 'adverb'; they have non-word, noun, verb, word");
  CHECK(contains(error("noun-"), "have no condition ''"));
  CHECK(contains(error("x=noun++verb-word"), "have no condition ''"));
  CHECK(contains(error("noun"), "'noun' is not a contrast; write two conditions"));
  CHECK(contains(error(""), "'' is not a contrast"));
  CHECK(error("noun+word-verb+noun") == "the contrast 'noun+word-verb+noun' names 'noun' twice");
  for (const std::string name : {"", "..", "a/b"}) CHECK(contains(error(name + "=noun-verb"), "is no name"));
  CHECK(contains(error(std::string(81, 'a') + "=noun-verb"), "is no name for a contrast"));

  StimulusSet lonely = set;
  lonely.items.erase(lonely.items.begin());
  CHECK(error_of([&] { parse_contrast("verb-noun", lonely); }) ==
        "the contrast 'verb-noun' has one item of 'noun'; a test needs at least two on each side");
  CHECK(error_of([&] { parse_contrast("noun+verb-word", lonely); }).empty());
}

TEST_CASE("stimuli built in: words, four cells of like length and no word twice") {
  const StimulusSet set = built_in_stimuli("words");
  CHECK(set.name == "words");
  CHECK(set.conditions() ==
        std::map<std::string, int64_t>{
            {"abstract_noun", 72}, {"abstract_verb", 72}, {"concrete_noun", 72}, {"concrete_verb", 72}});
  check_plain(set);
  check_lengths_balanced(set);
  for (const Stimulus& item : set.items) CHECK(words_of(item.text).size() == 1);
  CHECK(names(default_contrasts(set)) == Strings{"noun-verb", "concrete_noun-concrete_verb",
                                                 "abstract_noun-abstract_verb", "abstract-concrete"});
}

TEST_CASE("stimuli built in: pairs, each word once and with its article or particle") {
  const StimulusSet set = built_in_stimuli("pairs");
  CHECK(set.conditions() == std::map<std::string, int64_t>{{"noun", 72}, {"verb", 72}});
  check_plain(set);
  std::set<std::string> nouns, verbs;
  for (const Stimulus& item : set.items) {
    CAPTURE(item.text);
    const Strings words = words_of(item.text);
    REQUIRE(words.size() == 4);
    const bool noun = item.condition == "noun";
    for (const size_t i : {0, 2}) {
      CHECK(words[i] == (noun ? "the" : "to"));
      CHECK((noun ? nouns : verbs).insert(words[i + 1]).second);
    }
  }
  // The articles apart, which are a letter longer than the particles.
  StimulusSet bare = set;
  for (Stimulus& item : bare.items) item.text = words_of(item.text)[1] + words_of(item.text)[3];
  check_lengths_balanced(bare);
  CHECK(names(default_contrasts(set)) == Strings{"verb-noun"});
}

TEST_CASE("stimuli built in: the localizer's sentences, the same words in disorder, and non-words for them") {
  const StimulusSet set = built_in_stimuli("localizer");
  CHECK(set.conditions() ==
        std::map<std::string, int64_t>{{"nonword", 80}, {"scrambled", 80}, {"sentence", 80}});
  check_plain(set);
  CHECK(names(default_contrasts(set)) == Strings{"sentence-nonword", "sentence-scrambled"});

  const Strings sentences = texts(set, "sentence"), scrambled = texts(set, "scrambled"),
                non_words = texts(set, "nonword");
  const auto sorted = [](Strings words) {
    std::sort(words.begin(), words.end());
    return words;
  };
  const auto lengths = [](const Strings& words) {
    std::multiset<size_t> all;
    for (const std::string& word : words) all.insert(word.size());
    return all;
  };
  std::map<std::string, int> words, made;
  for (size_t i = 0; i < sentences.size(); ++i) {
    CAPTURE(sentences[i]);
    const Strings sentence = words_of(sentences[i]), mixed = words_of(scrambled[i]),
                  strange = words_of(non_words[i]);
    REQUIRE(sentence.size() == 12);
    CHECK(sorted(mixed) == sorted(sentence));
    CHECK(lengths(strange) == lengths(sentence));
    std::set<std::pair<std::string, std::string>> neighbors;
    for (size_t k = 1; k < 12; ++k) neighbors.insert({sentence[k - 1], sentence[k]});
    for (size_t k = 1; k < 12; ++k) CHECK(neighbors.count({mixed[k - 1], mixed[k]}) == 0);
    for (const std::string& word : sentence) ++words[word];
    for (const std::string& word : strange) ++made[word];
  }
  // Non-words recur just as words do, and none is one of the words here.
  std::multiset<int> repeats, made_repeats;
  for (const auto& [word, count] : words) repeats.insert(count);
  for (const auto& [word, count] : made) {
    made_repeats.insert(count);
    CHECK(words.count(word) == 0);
  }
  CHECK(made_repeats == repeats);

  CHECK(error_of([] { built_in_stimuli("fmri"); }) ==
        "there are no stimuli 'fmri' here; those built in are localizer, words and pairs");
}

}  // namespace topolm
