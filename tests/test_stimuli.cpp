// Reading stimuli, and what is said of bad ones; contrasts. All texts here are of our own making.
#include <doctest/doctest.h>

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

}  // namespace topolm
