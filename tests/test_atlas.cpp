// The atlas program on small untrained models: its numbers against statistics of the responses it saved, what
// its files hold, lesions, and what it refuses.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/safetensors.h"
#include "tests/programs.h"
#include "tests/subject.h"
#include "tools/analysis/moran.h"
#include "tools/analysis/regions.h"
#include "tools/analysis/statistics.h"

using namespace topolm;
using nlohmann::json;

namespace {

constexpr size_t kSites = 4, kUnits = 36;

/// Two models, stimuli of two conditions, and a text.
struct Study {
  TemporaryDirectory directory;
  Study() {
    write_subject(directory / "one");
    write_subject(directory / "two");
    std::string csv = "stimulus,condition\n";
    const char* nouns[] = {"the cat", "the dog", "the house", "the sea", "the old house", "the cats"};
    const char* verbs[] = {"has seen", "sees", "is seen", "has never seen", "are", "sees near"};
    for (int i = 0; i < 6; ++i) csv += std::string(nouns[i]) + ",noun\n" + verbs[i] + ",verb\n";
    directory.write("set.csv", csv);
    std::string tokens;
    for (int i = 0; i < 300; ++i) tokens += {static_cast<char>(i * 7 % 200), '\0'};
    directory.write("text.bin", tokens);
  }
  std::string path(const std::string& name) const { return (directory / name).string(); }
  Outcome atlas(const std::string& flags, const std::string& models = "") const {
    return run_program("atlas", (models.empty() ? "A=" + path("one") : models) + " --threads 2 --out " +
                                    path("out") + " --text " + path("text.bin") + " " + flags);
  }
  json result() const { return json::parse(read_file(directory / "out/atlas.json")); }
};

/// The rows of a CSV, by the names of the columns.
std::vector<std::map<std::string, std::string>> read_csv(const fs::path& path) {
  std::istringstream lines(read_file(path));
  const auto split = [](const std::string& line) {
    std::vector<std::string> fields;
    std::istringstream in(line);
    for (std::string field; std::getline(in, field, ',');) fields.push_back(field);
    return fields;
  };
  std::string line;
  std::getline(lines, line);
  const auto header = split(line);
  std::vector<std::map<std::string, std::string>> rows;
  while (std::getline(lines, line)) {
    const auto fields = split(line);
    REQUIRE(fields.size() == header.size());
    for (size_t i = 0; i < header.size(); ++i)
      (i == 0 ? rows.emplace_back() : rows.back())[header[i]] = fields[i];
  }
  return rows;
}

}  // namespace

TEST_CASE("atlas: its maps are Welch's t of the responses it saved, corrected over all sites together") {
  const Study study;
  const Outcome made =
      study.atlas("--stimuli " + study.path("set.csv") +
                  " --fwhm 0,2 --save-responses safetensors --null 20 --permutations 99 --min-size 1");
  REQUIRE_MESSAGE(made.status == 0, made.output);
  for (const char* part :
       {"Moran's I", "verb-noun", "FWHM 2", "h.1.mlp", "effective dimensions", "task loss", "atlas.html"})
    CHECK_MESSAGE(contains(made.output, part), part);

  const SafetensorsFile responses(study.directory / "out/responses-A-set.safetensors");
  const auto rows = read_csv(study.directory / "out/maps.csv");
  REQUIRE(rows.size() == 2 * kSites * kUnits);
  std::vector<double> p, q;
  for (const auto& row : rows) {
    if (row.at("fwhm") != "0") continue;
    const HostTensor& site = responses.get(row.at("site"));
    REQUIRE(site.shape == Shape{12, 36});
    std::vector<double> verbs, nouns;
    for (size_t item = 0; item < 12; ++item) {
      float x;
      std::memcpy(&x, static_cast<const char*>(site.data) + 4 * (item * kUnits + std::stoul(row.at("unit"))),
                  4);
      (item % 2 == 0 ? nouns : verbs).push_back(static_cast<double>(x));
    }
    const WelchTest expected = welch_test(verbs, nouns);
    CHECK(std::stod(row.at("t")) == doctest::Approx(expected.t).epsilon(1e-5));
    p.push_back(expected.p);
    q.push_back(std::stod(row.at("q")));
  }
  const std::vector<double> expected = benjamini_hochberg(p);
  for (size_t i = 0; i < q.size(); ++i) CHECK(q[i] == doctest::Approx(expected[i]).epsilon(1e-5));

  const json result = study.result();
  CHECK(result.at("format") == "topolm-atlas 1");
  const json& model = result.at("models").at(0);
  CHECK(model.at("name") == "A");
  CHECK(model.at("task_loss").get<double>() == doctest::Approx(std::log(320)).epsilon(0.05));
  const json& readout = model.at("contrasts").at(0).at("readouts").at(1);
  CHECK(readout.at("fwhm") == 2);
  // An untrained model is a control: its units lie at random. (Six standard deviations.)
  CHECK(std::abs(readout.at("moran").get<double>() - readout.at("null").at("mean").get<double>()) <
        6 * readout.at("null").at("sd").get<double>());
  CHECK(readout.at("sites").size() == kSites);

  // What --lesion reads of it.
  const ModelConfig config = load_config(*find_checkpoint(study.directory / "one"));
  const auto sheets = load_sheets(*find_checkpoint(study.directory / "one"), config);
  const LocalizerMap localizer = LocalizerMap::load(study.path("out/atlas.json"), "A", sheets);
  for (const auto& row : rows)
    if (row.at("fwhm") == "2")
      for (size_t s = 0; s < kSites; ++s)
        if (row.at("site") == site_name(static_cast<int>(s)))
          CHECK(localizer.t[s][std::stoul(row.at("unit"))] ==
                doctest::Approx(std::stod(row.at("t"))).epsilon(1e-5));
  CHECK(contains(read_file(study.directory / "out/atlas.html"), "atlas-data"));
}

TEST_CASE("atlas: our own stimuli, two models side by side, pictures and characters") {
  const Study study;
  const Outcome made = study.atlas("--stimuli pairs --stimuli words --null 0 --permutations 0 --ascii",
                                   "A=" + study.path("one") + " B=" + study.path("two"));
  REQUIRE_MESSAGE(made.status == 0, made.output);
  for (const char* part : {"concrete_noun-concrete_verb", "verb-noun", "B: verb-noun"})
    CHECK_MESSAGE(contains(made.output, part), part);
  const json result = study.result();
  CHECK(result.at("models").size() == 2);
  CHECK(result.at("contrasts").size() == 5);
  // The same seed: the same model, the same numbers.
  CHECK(result["models"][0]["contrasts"] == result["models"][1]["contrasts"]);
  if (const fs::path png = study.directory / "out/verb-noun-fwhm2.png";
      contains(made.output, "pictures    none"))
    CHECK_FALSE(fs::exists(png));
  else
    CHECK(read_file(png).starts_with("\x89PNG"));
}

TEST_CASE("atlas: every flag reaches the measurement") {
  const Study study;
  const std::string set = "--stimuli " + study.path("set.csv") + " --fwhm 1 ";
  const auto measure = [&](const std::string& flags) {
    const Outcome made = study.atlas(set + flags);
    REQUIRE_MESSAGE(made.status == 0, made.output);
    return study.result();
  };
  const auto readout = [](const json& result) { return result["models"][0]["contrasts"][0]["readouts"][0]; };
  const auto sites = [&](const json& result) {
    return readout(result)["sites"];
  };  // a copy, to be looped over
  const json usual = measure("--null 10 --permutations 99");

  // Moran's I as the two flags say, of the very maps.
  for (const auto& [contiguity, of_contiguity] :
       {std::pair{"queen", Contiguity::queen}, {"rook", Contiguity::rook}})
    for (const auto& [weights, of_weights] :
         {std::pair{"row", MoranWeights::row_standardised}, {"binary", MoranWeights::binary}}) {
      const json result =
          measure(fmt::format("--null 0 --permutations 0 --contiguity {} --weights {}", contiguity, weights));
      std::map<std::string, std::vector<double>> maps;
      for (const auto& row : read_csv(study.directory / "out/maps.csv"))
        maps[row.at("site")].push_back(std::stod(row.at("t")));
      for (const json list = sites(result); const json& site : list)
        CHECK(site["moran"].get<double>() ==
              doctest::Approx(morans_i(maps[site["site"]], 6, 6, {of_contiguity, of_weights})).epsilon(1e-4));
    }

  const json seeded = measure("--null 10 --permutations 99 --seed 2");
  CHECK(readout(seeded)["moran"] == readout(usual)["moran"]);
  CHECK(readout(seeded)["null"] != readout(usual)["null"]);
  CHECK(readout(measure("--null 10 --permutations 99")) == readout(usual));

  // Two conditions that even an untrained model tells apart in most units.
  std::string csv = "stimulus,condition\n";
  for (const char* last : {"cat", "dog", "house", "old", "cats", "has"})
    csv += fmt::format("the the the the the {0},a\nsea sea sea sea sea {0},b\n", last);
  const std::string clear = "--contrast a-b --stimuli " + study.directory.write("clear.csv", csv).string() +
                            " --fwhm 0 --null 0 --permutations 0 ";
  const auto clusters = [&](const std::string& flags) {
    REQUIRE(study.atlas(clear + flags).status == 0);
    size_t count = 0;
    for (const json list = sites(study.result()); const json& site : list) count += site["clusters"].size();
    return count;
  };
  const auto significant = [&] {
    int64_t cells = 0;
    for (const json list = sites(study.result()); const json& site : list)
      cells += site["positive"].get<int64_t>() + site["negative"].get<int64_t>();
    return cells;
  };
  const size_t four = clusters("--min-size 1");
  const int64_t cells = significant();
  CHECK(cells > 72);
  CHECK(clusters("--min-size 1 --connectivity 8") < four);  // cells that meet at a corner
  CHECK(significant() == cells);
  CHECK(clusters("--min-size 8") < four);
  clusters("--significance 0.0001");
  CHECK(significant() < cells);

  const double moran = readout(usual)["moran"];
  for (const char* pooling : {"last", "compat"})
    CHECK(readout(measure(fmt::format("--null 0 --permutations 0 --pooling {}", pooling)))["moran"] != moran);
  const json flipped = measure("--null 0 --permutations 0 --contrast turned=noun-verb");
  CHECK(flipped["contrasts"][0]["name"] == "turned");
  CHECK(readout(flipped)["moran"].get<double>() == doctest::Approx(moran));  // t with the other sign

  // Checkpoints: all, or the last.
  const fs::path one = study.directory / "one", late = one / "checkpoint-000007";
  fs::copy(one / "checkpoint-000000", late);
  CHECK(measure("--null 0 --permutations 0")["models"][0]["history"].size() == 2);
  const json last = measure("--null 0 --permutations 0 --checkpoints 1");
  CHECK(last["models"][0]["history"].size() == 1);
  CHECK(contains(last["models"][0]["checkpoint"].get<std::string>(), "000007"));
}

TEST_CASE("atlas: responses alone, to lines of a text") {
  const Study study;
  const std::string lines =
      study.directory.write("lines.txt", "the cat\nthe sea near the house\nshe\n").string();
  const Outcome made = study.atlas("--stimuli " + lines + " --save-responses npy");
  REQUIRE_MESSAGE(made.status == 0, made.output);
  CHECK(contains(made.output, "3 texts x 4 sites x 36 units"));
  CHECK(read_file(study.directory / "out/responses-A-lines.npy").starts_with("\x93NUMPY"));
  CHECK_FALSE(fs::exists(study.directory / "out/atlas.json"));
}

TEST_CASE("atlas: lesions and their controls; BLiMP") {
  const Study study;
  study.directory.write(
      "pairs.jsonl",
      R"({"sentence_good": "the cat sees the dog", "sentence_bad": "the cat see the dog", "UID": "u", "linguistics_term": "agreement"})"
      "\n"
      R"({"sentence_good": "she has seen the sea", "sentence_bad": "she have seen the sea", "UID": "u", "linguistics_term": "agreement"})"
      "\n");
  const std::string quick = "--stimuli " + study.path("set.csv") + " --null 0 --permutations 0 --fwhm 2 ";
  const Outcome made = study.atlas(quick +
                                   "--controls 2 --lesion 'h.0.mlp:disk(2,2,1)' --lesion 'all:all' --lesion "
                                   "'h.1.attn:disk(3,3,2)*1' --blimp " +
                                   study.path("pairs.jsonl"));
  REQUIRE_MESSAGE(made.status == 0, made.output);
  const json report = study.result().at("lesions").at(0);
  const double intact = report.at("intact").at("loss");
  const json& lesions = report.at("lesions");
  REQUIRE(lesions.size() == 3);
  CHECK(lesions[0]["interventions"][0]["units"].size() == 5);
  CHECK(lesions[0]["lesioned"]["loss"] != intact);
  CHECK(lesions[0]["controls"].size() == 2);
  CHECK(lesions[0]["controls"][0]["loss"] != lesions[0]["controls"][1]["loss"]);
  CHECK(lesions[1]["controls"].empty());            // there are no others to draw
  CHECK(lesions[2]["lesioned"]["loss"] == intact);  // a gain of 1 changes no bit
  CHECK(lesions[2]["lesioned"]["blimp"] == report["intact"]["blimp"]);
  CHECK(report["intact"]["blimp"]["pairs"] == 2);

  const Outcome scored = study.atlas(quick + "--blimp " + study.path("pairs.jsonl"));
  REQUIRE_MESSAGE(scored.status == 0, scored.output);
  CHECK(contains(scored.output, "agreement"));
  CHECK(study.result().at("blimp").at(0).at("result") == report["intact"]["blimp"]);
  // As published: what follows a sentence in its batch counts, and here everything does.
  REQUIRE(study.atlas(quick + "--compat --blimp " + study.path("pairs.jsonl")).status == 0);
  CHECK(study.result().at("blimp").at(0).at("result").at("pairs") == 2);
}

TEST_CASE("atlas: every bad input gets one sentence") {
  const Study study;
  const auto refuses = [&](const std::string& flags, const std::string& part,
                           const std::string& models = "") {
    const Outcome outcome = study.atlas(flags, models);
    CAPTURE(flags);
    CAPTURE(outcome.output);
    CHECK(outcome.status == 1);
    CHECK(contains(outcome.output, part));
    const size_t begin = outcome.output.find("error: ");
    REQUIRE(begin != std::string::npos);
    CHECK(outcome.output.find('\n', begin) == outcome.output.size() - 1);
  };
  refuses("", "there is no model in", "X=" + study.path("nowhere"));
  refuses("--stimuli " + study.path("none.csv"), "none.csv");
  refuses("--stimuli " + study.directory.write("columns.csv", "word,kind\na,b\n").string(), "columns.csv");
  refuses("--stimuli " + study.directory.write("empty.csv", "stimulus,condition\nthe cat,\n").string(),
          "empty.csv");
  refuses("--stimuli " + study.directory.write("bytes.csv", "stimulus,condition\nc\xff\xfe,a\n").string(),
          "UTF-8");
  refuses("--contrast a-b --stimuli " +
              study.directory.write("single.csv", "stimulus,condition\nthe cat,a\nsea,a\nis,b\n").string(),
          "b");
  refuses("--stimuli " + study.path("set.csv") + " --contrast noun-adjective", "adjective");
  std::string endless = "stimulus,condition\nthe,a\nsea,a\nis,b\n\"";
  for (int i = 0; i < 100; ++i) endless += "the sea and ";
  refuses("--contrast a-b --stimuli " + study.directory.write("long.csv", endless + "\",b\n").string(),
          "context");
  const std::string set = "--stimuli " + study.path("set.csv") + " --null 0 --permutations 0 ";
  refuses("--stimuli " + study.directory.write("lines.txt", "the cat\n").string(), "nothing to contrast");
  refuses(set + "--pooling median", "median");
  refuses(set + "--fwhm -1", "fwhm");
  refuses(set + "--blimp " + study.path("none.jsonl"), "none.jsonl");
  refuses(set + "--lesion 'h.9.mlp:all'", "h.9.mlp");
  refuses(set, "two models are called one", study.path("one") + " " + study.path("one"));
  CHECK(study.atlas("--connectivity 5").status == 2);
}
