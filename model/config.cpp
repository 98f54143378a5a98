#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>
#include <utility>

#include "engine/error.h"

namespace topolm {

namespace {

template <class T>
using Words = std::initializer_list<std::pair<const char*, T>>;

const Words<Tap> kTaps = {{"pre", Tap::pre}, {"post", Tap::post}};
const Words<Distance> kDistances = {{"l2", Distance::l2}, {"l1", Distance::l1}, {"linf", Distance::linf}};
const Words<Aggregation> kAggregations = {{"mean", Aggregation::mean}, {"max", Aggregation::max}};
const Words<Gelu> kGelus = {{"erf", Gelu::erf}, {"tanh", Gelu::tanh}};
const Words<Schedule> kSchedules = {
    {"cosine", Schedule::cosine}, {"linear", Schedule::linear}, {"constant", Schedule::constant}};
const Words<DType> kDTypes = {{"fp32", DType::f32}, {"bf16", DType::bf16}};

template <class T>
std::string word_of(const Words<T>& words, T value) {
  for (const auto& [word, v] : words)
    if (v == value) return word;
  fail("an option has the unknown value {}", static_cast<int>(value));
}

template <class T>
void value_of(const Words<T>& words, const std::string& word, T& value) {
  std::vector<std::string> allowed;
  for (const auto& [w, v] : words) {
    if (w == word) return void(value = v);
    allowed.push_back(w);
  }
  fail("'{}' is not one of: {}", word, fmt::join(allowed, ", "));
}

/// Reads a field if it is there; names the field when its type is wrong.
template <class T>
void read(const nlohmann::json& j, const char* name, T& value) {
  if (!j.contains(name)) return;
  try {
    j.at(name).get_to(value);
  } catch (const nlohmann::json::exception&) {
    fail("the field '{}' of the configuration has the value {}, which is of the wrong type", name,
         j.at(name).dump());
  }
}

template <class T>
void read_word(const nlohmann::json& j, const char* name, T& value) {
  std::string word = to_word(value);
  read(j, name, word);
  parse_word(word, value);
}

}  // namespace

std::string to_word(Tap v) { return word_of(kTaps, v); }
std::string to_word(Distance v) { return word_of(kDistances, v); }
std::string to_word(Aggregation v) { return word_of(kAggregations, v); }
std::string to_word(Gelu v) { return word_of(kGelus, v); }
std::string to_word(Schedule v) { return word_of(kSchedules, v); }
std::string to_word(DType v) { return word_of(kDTypes, v); }
void parse_word(const std::string& word, Tap& v) { value_of(kTaps, word, v); }
void parse_word(const std::string& word, Distance& v) { value_of(kDistances, word, v); }
void parse_word(const std::string& word, Aggregation& v) { value_of(kAggregations, word, v); }
void parse_word(const std::string& word, Gelu& v) { value_of(kGelus, word, v); }
void parse_word(const std::string& word, Schedule& v) { value_of(kSchedules, word, v); }
void parse_word(const std::string& word, DType& v) { value_of(kDTypes, word, v); }

std::string site_name(int site) { return fmt::format("h.{}.{}", site / 2, site % 2 == 0 ? "attn" : "mlp"); }

int64_t ModelConfig::parameters() const {
  const int64_t c = n_embd;
  return (vocab_size + block_size) * c + n_layer * (12 * c * c + 2 * c) + c;
}

double ModelConfig::flops_per_token(int64_t time) const {
  const double c = n_embd;
  const double matrices = n_layer * 12 * c * c + vocab_size * c;
  const double attention = n_layer * c * static_cast<double>(time);  // two products, half of them masked
  return 6 * (matrices + attention);
}

void ModelConfig::check() const {
  const TopographyConfig& t = topography;
  const auto positive = [](int value, const char* flag) {
    require(value > 0, "{} is {}; it must be at least 1", flag, value);
  };
  positive(n_layer, "n_layer");
  positive(n_head, "n_head");
  positive(n_embd, "n_embd");
  positive(block_size, "block_size");
  positive(vocab_size, "vocab_size");
  require(n_embd % n_head == 0, "n_embd {} is not divisible by n_head {}; choose --n-head among its divisors",
          n_embd, n_head);
  require(t.rows > 0 && t.cols > 0 && int64_t{t.rows} * t.cols == n_embd,
          "a sheet of {}x{} holds {} units, but n_embd is {}; set --sheet to a rectangle of n_embd units",
          t.rows, t.cols, int64_t{t.rows} * t.cols, n_embd);
  require(t.radius >= 2, "--radius {} leaves one unit a neighborhood; it must be at least 2", t.radius);
  const int side = 2 * t.radius - 1;
  require(side <= t.rows && side <= t.cols,
          "--radius {} makes neighborhoods of {}x{} units, more than the {}x{} sheet; use a smaller radius",
          t.radius, side, side, t.rows, t.cols);
  const int centres = (t.rows - side + 1) * (t.cols - side + 1);
  require(t.neighborhoods >= 1 && t.neighborhoods <= centres,
          "--neighborhoods {} is not between 1 and the {} that fit on the sheet", t.neighborhoods, centres);
  require(t.alpha.size() == 1 || static_cast<int>(t.alpha.size()) == sites(),
          "--alpha has {} values; give one for all sites or one for each of the {}", t.alpha.size(), sites());
  for (const double a : t.alpha)
    require(std::isfinite(a) && a >= 0, "--alpha {} is not a weight; it must be 0 or more", a);
  require(std::isfinite(t.activation_decay) && t.activation_decay >= 0,
          "--activation-decay {} is not a weight; it must be 0 or more", t.activation_decay);
}

double TrainConfig::lr_at(int64_t it) const {
  if (it < warmup) return lr * static_cast<double>(it) / static_cast<double>(warmup);
  const int64_t end = decay_steps > 0 ? decay_steps : steps;
  if (schedule == Schedule::constant) return lr;
  if (it >= end) return min_lr;
  const double progress = static_cast<double>(it - warmup) / static_cast<double>(end - warmup);
  const double keep =
      schedule == Schedule::linear ? 1 - progress : 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return min_lr + keep * (lr - min_lr);
}

void TrainConfig::check(const ModelConfig& model) const {
  require(steps >= 0, "--steps {} is negative", steps);
  require(batch > 0 && accumulate > 0, "--batch {} and --accumulate {} must be at least 1", batch,
          accumulate);
  require(seq > 0 && seq <= model.block_size,
          "--seq {} is not between 1 and the model's context of {} tokens (--block-size)", seq,
          model.block_size);
  require(int64_t{batch} * seq >= 2,
          "a batch of one token has no correlations; use a larger --batch or --seq");
  require(std::isfinite(lr) && lr >= 0 && std::isfinite(min_lr) && min_lr >= 0 && min_lr <= lr,
          "--lr {} and --min-lr {} must be 0 or more, and the minimum not above the maximum", lr, min_lr);
  require(warmup >= 0, "--warmup {} is negative", warmup);
  require(beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1, "--beta1 {} and --beta2 {} must lie in [0, 1)",
          beta1, beta2);
  require(eps > 0 && weight_decay >= 0 && clip >= 0,
          "--eps must be positive, --weight-decay and --clip 0 or more");
}

ModelConfig model_preset(const std::string& name) {
  ModelConfig c;
  if (name == "tiny") return c;
  if (name == "nano") {
    c.n_layer = 2, c.n_embd = 36, c.block_size = 64, c.vocab_size = 512;
    c.topography.rows = c.topography.cols = 6;
    c.topography.radius = 2, c.topography.neighborhoods = 3;
    return c;
  }
  if (name == "base") {
    c.n_layer = 12, c.n_head = 16, c.n_embd = 784, c.block_size = 1024, c.vocab_size = 50304;
    c.topography.rows = c.topography.cols = 28;
    return c;
  }
  fail("there is no preset '{}'; choose nano, tiny or base", name);
}

TrainConfig train_preset(const std::string& name) {
  TrainConfig t;
  t.seq = model_preset(name).block_size;
  if (name == "nano") t.warmup = 10;
  if (name == "base") {
    t.batch = 48, t.accumulate = 20, t.lr = 6e-4, t.min_lr = 6e-5, t.warmup = 2000, t.steps = 600000;
  }
  return t;
}

void to_json(nlohmann::json& j, const ModelConfig& c) {
  const TopographyConfig& t = c.topography;
  nlohmann::json alpha = t.alpha;
  if (t.alpha.size() == 1) alpha = t.alpha[0];
  j = {{"model_type", "topolm"},
       {"n_layer", c.n_layer},
       {"n_head", c.n_head},
       {"n_embd", c.n_embd},
       {"block_size", c.block_size},
       {"vocab_size", c.vocab_size},
       {"gelu", to_word(c.gelu)},
       {"topography",
        {{"sheet", {t.rows, t.cols}},
         {"alpha", alpha},
         {"radius", t.radius},
         {"neighborhoods", t.neighborhoods},
         {"site", to_word(t.tap)},
         {"distance", to_word(t.distance)},
         {"aggregation", to_word(t.aggregation)},
         {"activation_decay", t.activation_decay}}}};
}

void from_json(const nlohmann::json& j, ModelConfig& c) {
  require(j.is_object(), "the model's configuration is not a JSON object");
  read(j, "n_layer", c.n_layer);
  read(j, "n_head", c.n_head);
  read(j, "n_embd", c.n_embd);
  read(j, "block_size", c.block_size);
  read(j, "vocab_size", c.vocab_size);
  read_word(j, "gelu", c.gelu);
  TopographyConfig& t = c.topography;
  t.rows = t.cols = static_cast<int>(std::lround(std::sqrt(c.n_embd)));
  if (!j.contains("topography")) return;
  const nlohmann::json& s = j.at("topography");
  require(s.is_object(), "the field 'topography' of the configuration is not a JSON object");
  if (s.contains("sheet")) {
    std::vector<int> sheet;
    read(s, "sheet", sheet);
    require(sheet.size() == 2, "the field 'sheet' of the configuration needs two numbers, rows and columns");
    t.rows = sheet[0], t.cols = sheet[1];
  }
  if (s.contains("alpha") && s.at("alpha").is_number())
    t.alpha = {s.at("alpha").get<double>()};
  else
    read(s, "alpha", t.alpha);
  read(s, "radius", t.radius);
  read(s, "neighborhoods", t.neighborhoods);
  read_word(s, "site", t.tap);
  read_word(s, "distance", t.distance);
  read_word(s, "aggregation", t.aggregation);
  read(s, "activation_decay", t.activation_decay);
}

void to_json(nlohmann::json& j, const TrainConfig& c) {
  j = {{"steps", c.steps},
       {"batch", c.batch},
       {"seq", c.seq},
       {"accumulate", c.accumulate},
       {"lr", c.lr},
       {"min_lr", c.min_lr},
       {"warmup", c.warmup},
       {"decay_steps", c.decay_steps},
       {"schedule", to_word(c.schedule)},
       {"beta1", c.beta1},
       {"beta2", c.beta2},
       {"eps", c.eps},
       {"weight_decay", c.weight_decay},
       {"clip", c.clip},
       {"seed", c.seed},
       {"dtype", to_word(c.dtype)},
       {"recompute", c.recompute}};
}

void from_json(const nlohmann::json& j, TrainConfig& c) {
  require(j.is_object(), "the training configuration is not a JSON object");
  read(j, "steps", c.steps);
  read(j, "batch", c.batch);
  read(j, "seq", c.seq);
  read(j, "accumulate", c.accumulate);
  read(j, "lr", c.lr);
  read(j, "min_lr", c.min_lr);
  read(j, "warmup", c.warmup);
  read(j, "decay_steps", c.decay_steps);
  read_word(j, "schedule", c.schedule);
  read(j, "beta1", c.beta1);
  read(j, "beta2", c.beta2);
  read(j, "eps", c.eps);
  read(j, "weight_decay", c.weight_decay);
  read(j, "clip", c.clip);
  read(j, "seed", c.seed);
  read_word(j, "dtype", c.dtype);
  read(j, "recompute", c.recompute);
}

}  // namespace topolm
