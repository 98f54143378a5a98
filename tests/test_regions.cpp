// Regions in words: each form, each thing that can be wrong with one, and the random control.
#include "tools/analysis/regions.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/small_atlas.h"
#include "tests/temporary.h"

using namespace topolm;
using namespace topolm::test;
using nlohmann::json;

namespace {

std::vector<Sheet> sheets() {
  std::vector<Sheet> all;
  for (int site = 0; site < kSites; ++site)
    all.emplace_back(site_name(site), kRows, kCols, Sheet::permutation(kRows, kCols, 7, site));
  return all;
}

std::optional<LocalizerMap> localizer() {
  const TemporaryDirectory directory;
  return LocalizerMap::load(directory.write("atlas.json", atlas_json().dump()).string(), "", sheets());
}

using Units = std::vector<int32_t>;

/// The region's units, a site; all with this gain.
std::map<int, Units> region(const std::string& text, float gain = 0, float expected = 0,
                            const std::optional<LocalizerMap>& map = localizer()) {
  CAPTURE(text);
  std::map<int, Units> sites;
  for (const Intervention& i : parse_region(text, sheets(), map, gain)) {
    CHECK(i.gain == expected);
    CHECK_FALSE(i.units.empty());
    CHECK(sites.emplace(i.site, i.units).second);
  }
  return sites;
}

Units every_unit() {
  Units units(kUnits);
  for (int32_t u = 0; u < kUnits; ++u) units[static_cast<size_t>(u)] = u;
  return units;
}

/// The units of a site that lie at these places.
Units at(int site, const std::vector<Position>& places) {
  Units units;
  for (const Position p : places) units.push_back(sheets()[static_cast<size_t>(site)].unit_at(p.row, p.col));
  std::sort(units.begin(), units.end());
  return units;
}

size_t count(const std::map<int, Units>& region) {
  size_t n = 0;
  for (const auto& entry : region) n += entry.second.size();
  return n;
}

std::string refused(const std::string& text, const std::optional<LocalizerMap>& map = localizer()) {
  return error_of([&] { parse_region(text, sheets(), map, 0); });
}

}  // namespace

TEST_CASE("regions: all, and units by number") {
  CHECK(region("h.1.mlp:all") == std::map<int, Units>{{3, every_unit()}});
  CHECK(region("h.0.attn:units(3,17,20)") == std::map<int, Units>{{0, {3, 17, 20}}});
  CHECK(region(" h.0.attn : units( 20, 3 ) ") == std::map<int, Units>{{0, {20, 3}}});
  const auto everything = region("all:all");
  CHECK(everything.size() == kSites);
  CHECK(count(everything) == kSites * kUnits);
  CHECK(region("all:units(5)") == std::map<int, Units>{{0, {5}}, {1, {5}}, {2, {5}}, {3, {5}}});
}

TEST_CASE("regions: a disk is what lies within its radius on the sheet, wherever the units are numbered") {
  CHECK(region("h.1.attn:disk(2,3,0)") == std::map<int, Units>{{2, at(2, {{2, 3}})}});
  CHECK(region("h.1.attn:disk(2,3,1)") ==
        std::map<int, Units>{{2, at(2, {{2, 3}, {1, 3}, {3, 3}, {2, 2}, {2, 4}})}});
  CHECK(region("h.0.mlp:disk(2.5,3.5,0.8)") ==
        std::map<int, Units>{{1, at(1, {{2, 3}, {2, 4}, {3, 3}, {3, 4}})}});
  CHECK(region("h.0.mlp:disk(-1,0,1)") == std::map<int, Units>{{1, at(1, {{0, 0}})}});  // its rim alone
  CHECK(region("h.0.mlp:disk(5,5,1.5)") ==
        std::map<int, Units>{{1, at(1, {{5, 5}, {4, 5}, {5, 4}, {4, 4}})}});
  // The border belongs to it: (3, 4) and (5, 0) are 5 from the corner.
  const Units five = region("h.0.mlp:disk(0,0,5)").at(1);
  for (const Position p : {Position{3, 4}, {4, 3}, {5, 0}, {0, 5}}) {
    const int32_t unit = sheets()[1].unit_at(p.row, p.col);
    CHECK(std::find(five.begin(), five.end(), unit) != five.end());
  }
  CHECK(five.size() == 25 - 1 + 2);  // (4, 4) is farther; (5, 0) and (0, 5) are not
  CHECK(count(region("all:disk(2,3,1)")) == 5 * kSites);
}

TEST_CASE("regions: clusters and the most selective units of an atlas") {
  CHECK(region("h.0.mlp:cluster(1)") == std::map<int, Units>{{1, {3, 1, 2}}});
  CHECK(region("h.0.mlp:cluster(2)") == std::map<int, Units>{{1, {9, 8}}});
  CHECK(region("all:cluster(1)") == std::map<int, Units>{{1, {3, 1, 2}}, {2, {5, 4}}});
  CHECK(region("h.0.mlp:top(3)") == std::map<int, Units>{{1, {0, 1, 2}}});
  CHECK(region("all:top(6)") == std::map<int, Units>{{0, {0}}, {1, {0}}, {2, {0, 1}}, {3, {0, 1}}});
  CHECK(region("all:top(0)").empty());
  CHECK(region("all:top(144)") == region("all:all"));
  auto map = localizer();
  map->t[3].assign(kUnits, 1.0);
  CHECK(region("h.1.mlp:top(4)", 0, 0, map) == std::map<int, Units>{{3, {0, 1, 2, 3}}});  // ties
}

TEST_CASE("regions: at random, outside of what the localizer found positive") {
  const auto found = [](int32_t unit, int site) { return unit < kUnits / 2 && 10 + 0.25 * site - unit > 0; };
  const auto one = region("h.0.attn:random(20,7)");
  CHECK(count(one) == 20);
  CHECK(one.size() == 1);
  CHECK(std::set<int32_t>(one.at(0).begin(), one.at(0).end()).size() == 20);
  for (const int32_t unit : one.at(0)) CHECK_FALSE(found(unit, 0));
  CHECK(one == region("h.0.attn:random(20,7)"));
  CHECK(one != region("h.0.attn:random(20,8)"));
  CHECK(one.at(0) != region("h.0.mlp:random(20,7)").at(1));
  // 26, 25, 25 and 25 units are left: every one of them can be drawn.
  CHECK(count(region("h.0.attn:random(26,1)")) == 26);
  CHECK(count(region("h.0.mlp:random(25,1)")) == 25);
  const auto all = region("all:random(101,18446744073709551615)");
  CHECK(count(all) == 101);
  for (const auto& entry : all)
    for (const int32_t unit : entry.second) CHECK_FALSE(found(unit, entry.first));
  CHECK(count(region("all:random(30,7)")) == 30);
  CHECK(region("all:random(30,7)") != region("all:random(30,6)"));
  CHECK(region("all:random(0,7)").empty());
}

TEST_CASE("regions: what the localizer found is significant and positive") {
  LocalizerMap map;
  map.t = {{1, -1, 1, 0, 0.1}, {5, -5, 5, 5, 5}};
  map.q = {{0.01, 0.01, 0.05, 0.01, 0.04999}, {1, 1, 1, 0.06, 0}};
  CHECK(map.selective_units() == std::vector<Units>{{0, 4}, {4}});
}

TEST_CASE("regions: a gain at the end") {
  region("h.0.attn:all*2.5", 1, 2.5f);
  region("h.0.attn:units(1,2) * -0.5", 1, -0.5f);
  region("h.0.attn:top(3)*0", 1, 0);
  region("h.0.attn:top(3)", 3, 3);
}

TEST_CASE("regions: what is wrong with a text is one sentence that quotes it") {
  const std::vector<std::pair<const char*, const char*>> wrong = {
      {"h.9.mlp:all", "there is no site h.9.mlp: the model has h.0.attn to h.1.mlp, or all"},
      {"H.0.mlp:all", "there is no site H.0.mlp: the model has h.0.attn to h.1.mlp, or all"},
      {"h.0.mlp", "it needs a site, a colon and a form, as in h.0.mlp:all"},
      {"", "it needs a site, a colon and a form, as in h.0.mlp:all"},
      {"h.0.mlp:", "there is no form '': choose disk, cluster, top, random, units or all"},
      {"h.0.mlp:disc(1,2,3)", "there is no form 'disc': choose disk, cluster, top, random, units or all"},
      {"h.0.mlp:disk(1,2)", "disk is written disk(ROW,COLUMN,RADIUS)"},
      {"h.0.mlp:disk", "disk is written disk(ROW,COLUMN,RADIUS)"},
      {"h.0.mlp:cluster(1,2)", "cluster is written cluster(NUMBER)"},
      {"h.0.mlp:top", "top is written top(COUNT)"},
      {"h.0.mlp:random(5)", "random is written random(COUNT,SEED)"},
      {"h.0.mlp:units", "units is written units(NUMBER,NUMBER,...)"},
      {"h.0.mlp:all(1)", "all is written all, without brackets"},
      {"h.0.mlp:disk(1,2,3", "its bracket is not closed"},
      {"h.0.mlp:disk(1,2,3)x", "'x' after the bracket is too much"},
      {"h.0.mlp:disk(1,2,3))*2", "')' after the bracket is too much"},
      {"h.0.mlp:disk(1,two,3)", "'two' is not a number"},
      {"h.0.mlp:disk(1,nan,3)", "'nan' is not a number"},
      {"h.0.mlp:disk(1,,3)", "'' is not a number"},
      {"h.0.mlp:disk(1,2,-3)", "its radius is negative"},
      {"h.0.mlp:disk(12,9,4)", "the disk covers no unit; rows are 0 to 5 and columns 0 to 5"},
      {"h.0.mlp:disk(2.5,2.5,0.5)", "the disk covers no unit; rows are 0 to 5 and columns 0 to 5"},
      {"h.0.mlp:cluster(0)", "there is no cluster 0: the atlas has 2 there, numbered from 1"},
      {"h.0.mlp:cluster(3)", "there is no cluster 3: the atlas has 2 there, numbered from 1"},
      {"h.0.attn:cluster(1)", "there is no cluster 1: the atlas has 0 there, numbered from 1"},
      {"h.0.mlp:cluster(-1)", "'-1' is not a whole number, 0 or more"},
      {"h.0.mlp:top(2.5)", "'2.5' is not a whole number, 0 or more"},
      {"h.0.mlp:top(37)", "there are only 36 units there"},
      {"all:top(145)", "there are only 144 units there"},
      {"h.0.mlp:random(26,1)", "there are only 25 units there outside of what the localizer found positive"},
      {"h.0.mlp:random(26,99999999999999999999)", "'99999999999999999999' is not a whole number, 0 or more"},
      {"h.0.mlp:units(36)", "there is no unit 36: h.0.mlp has 0 to 35"},
      {"h.0.mlp:units()", "'' is not a whole number, 0 or more"},
      {"h.0.mlp:units(3,4,3)", "it names unit 3 twice"},
      {"h.0.mlp:all*", "its gain '' is not a number that fp32 holds"},
      {"h.0.mlp:all*2x", "its gain '2x' is not a number that fp32 holds"},
      {"h.0.mlp:all*inf", "its gain 'inf' is not a number that fp32 holds"},
      {"h.0.mlp:all*1e39", "its gain '1e39' is not a number that fp32 holds"},
  };
  for (const auto& w : wrong) CHECK(refused(w.first) == fmt::format("region '{}': {}", w.first, w.second));
  for (const std::string form : {"cluster(2)", "top(5)", "random(5,7)"})
    CHECK(refused("h.0.mlp:" + form, {}) ==
          fmt::format("region 'h.0.mlp:{0}': {0} needs --atlas atlas.json, as ./atlas writes it", form));
  CHECK(refused("h.0.mlp:disk(1,2,3)", {}).empty());
}

TEST_CASE("regions: an atlas is of these sheets and whole, or refused in one sentence") {
  const TemporaryDirectory directory;
  const std::string path = (directory / "atlas.json").string();
  const auto load = [&](const std::string& model = "") { return LocalizerMap::load(path, model, sheets()); };
  const auto error = [&](const std::string& text, const std::string& model = "") {
    write_file(path, text);
    const std::string sentence = error_of([&] { load(model); });
    CHECK(contains(sentence, "'" + path + "'"));
    CHECK_FALSE(contains(sentence, "\n"));
    return sentence;
  };
  write_file(path, atlas_json().dump());
  CHECK(load().t[0][35] == 10 - 35);
  CHECK(load("topographic").q[3][17] == 0.01);
  CHECK(load("control").t[0][35] == 99);
  CHECK(load().clusters[1] == std::vector<Units>{{3, 1, 2}, {9, 8}});

  CHECK(contains(error(atlas_json().dump(), "mine"), "has no model 'mine'; it has topographic, control"));
  CHECK(contains(error("{\"format\""), "is damaged or not an atlas"));
  CHECK(contains(error(""), "is damaged or not an atlas"));
  CHECK(contains(error("\xff\xfe"), "is damaged or not an atlas"));
  CHECK(contains(error("[1]"), "is not an atlas; give the atlas.json that ./atlas writes"));
  CHECK(contains(error(R"({"format": 3})"), "is not an atlas"));
  CHECK(contains(error(R"({"format": "topolm-atlas 1"})"), "is damaged or not an atlas"));
  CHECK(contains(error(R"({"format": "topolm-atlas 1", "models": []})"), "has no model"));
  const auto damaged = [&](auto damage) {
    json atlas = atlas_json();
    damage(atlas["models"][0]);
    return error(atlas.dump());
  };
  const auto site = [](json& model, int i) -> json& { return model["localizer"]["sites"][i]; };
  CHECK(contains(damaged([](json& m) { m.erase("localizer"); }),
                 "has no localizer of its model 'topographic'"));
  CHECK(contains(damaged([](json& m) { m["localizer"]["sites"].erase(3); }), "it has 3 sites, this model 4"));
  CHECK(contains(damaged([&](json& m) { site(m, 2)["t"].erase(0); }),
                 "its h.1.attn has 35 values of t, this model 36 units"));
  CHECK(contains(damaged([&](json& m) { site(m, 0)["q"].push_back(1); }), "h.0.attn has 37 values of q"));
  CHECK(contains(damaged([&](json& m) { site(m, 1)["site"] = "h.0.attn"; }),
                 "its site 1 is \"h.0.attn\", not h.0.mlp"));
  CHECK(contains(damaged([&](json& m) { site(m, 1)["t"][4] = nullptr; }), "is damaged"));
  CHECK(contains(damaged([&](json& m) { site(m, 1).erase("clusters"); }), "is damaged"));
  for (const json& unit : {json(36), json(-1), json(2.5), json(int64_t{1} << 32), json("3")})
    CHECK(contains(damaged([&](json& m) { site(m, 1)["clusters"][1][0] = unit; }), "is damaged"));
  CHECK_THROWS_AS(LocalizerMap::load((directory / "nothing.json").string(), "", sheets()), Error);
}

TEST_CASE("random control: as many units a site, none of them lesioned, a function of seed and site") {
  const std::vector<Intervention> lesion = {{1, {0, 1, 2, 3, 4}, 0}, {3, {30, 31}, 0}, {1, {4, 5}, 2}};
  const auto control = random_control(lesion, sheets(), 7);
  REQUIRE(control.size() == 3);
  std::set<int32_t> mlp;
  for (size_t i = 0; i < 3; ++i) {
    CHECK(control[i].site == lesion[i].site);
    CHECK(control[i].gain == lesion[i].gain);
    CHECK(control[i].units.size() == lesion[i].units.size());
    for (const int32_t unit : control[i].units) {
      CHECK((unit >= 0 && unit < kUnits));
      if (control[i].site == 1) mlp.insert(unit);
      CHECK_FALSE((control[i].site == 1 && unit <= 5));
      CHECK_FALSE((control[i].site == 3 && (unit == 30 || unit == 31)));
    }
  }
  CHECK(mlp.size() == 6);
  CHECK(control[0].units[4] == control[2].units[0]);  // what stands in for unit 4 takes both of its gains

  const auto units = [](const std::vector<Intervention>& all) {
    std::vector<Units> lists;
    for (const Intervention& i : all) lists.push_back(i.units);
    return lists;
  };
  CHECK(units(random_control(lesion, sheets(), 7)) == units(control));
  CHECK(units(random_control(lesion, sheets(), 8)) != units(control));
  CHECK(random_control({lesion[1]}, sheets(), 7)[0].units == control[1].units);  // whatever other sites do
  const Intervention elsewhere{0, lesion[1].units, 0};
  CHECK(random_control({elsewhere}, sheets(), 7)[0].units != control[1].units);
  CHECK(random_control({{2, {}, 0}}, sheets(), 7)[0].units.empty());

  Units half = every_unit();
  half.resize(18);
  CHECK(random_control({{0, half, 0}}, sheets(), 1)[0].units.size() == 18);
  half.push_back(18);
  CHECK(error_of([&] {
          random_control({{0, half, 0}}, sheets(), 1);
        }) == "a random control of h.0.attn needs 19 units outside of the region, but it leaves only 17");
}

TEST_CASE("regions: described by their distinct units") {
  CHECK(describe(std::vector<Intervention>{{3, {1, 2, 3}, 0}, {0, {5}, 0}, {3, {3, 4}, 2}}, sheets()) ==
        "5 of 144 units: h.0.attn 1, h.1.mlp 4");
  CHECK(describe({}, sheets()) == "0 of 144 units");
}
