// What a TopoLM is and how it is trained: plain data, checked once, read from and written to JSON.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace topolm {

/// Where a site taps: the output of attention or MLP before it is added to the residual stream (the paper),
/// or the residual stream after it.
enum class Tap { pre, post };
/// The norm of the distance in D = 1/(1+d). Neighborhoods are squares (Linf) either way.
enum class Distance { l2, l1, linf };

struct TopographyConfig {
  int rows = 14, cols = 14;        // the sheet: rows * cols = n_embd
  std::vector<double> alpha{2.5};  // weight of a site's spatial loss: one for all sites, or one a site
  int radius = 5;                  // a neighborhood is the units with Linf distance < radius from its centre
  int neighborhoods = 5;           // drawn without replacement, a site and micro-batch
  Tap tap = Tap::pre;
  Distance distance = Distance::l2;
  Aggregation aggregation = Aggregation::mean;
  double activation_decay = 0;  // weight of the mean over rows of |activations|^2, summed over sites

  double alpha_of(int site) const { return alpha.size() == 1 ? alpha[0] : alpha[static_cast<size_t>(site)]; }
};

/// A GPT-2-like transformer: pre-LN, learned positions, tied head, no biases, no dropout.
struct ModelConfig {
  int n_layer = 4, n_head = 4, n_embd = 196, block_size = 256, vocab_size = 4096;
  Gelu gelu = Gelu::erf;
  TopographyConfig topography;

  int sites() const { return 2 * n_layer; }  // h.0.attn, h.0.mlp, h.1.attn, ...
  int head_size() const { return n_embd / n_head; }
  int64_t parameters() const;
  /// Floating-point operations of forward and backward a token: 6 a matrix parameter, and causal attention
  /// over `time` positions (llm.c's convention).
  double flops_per_token(int64_t time) const;
  /// Throws Error with one sentence about the first thing that does not fit.
  void check() const;
};

enum class Schedule { cosine, linear, constant };

struct TrainConfig {
  int64_t steps = 300;
  int batch = 8, seq = 256, accumulate = 1;
  double lr = 1e-3, min_lr = 1e-4;
  int64_t warmup = 20, decay_steps = 0;  // decay_steps 0: steps
  Schedule schedule = Schedule::cosine;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1, clip = 1.0;
  uint64_t seed = 1337;
  DType dtype = DType::f32;
  bool recompute = false;  // activations in the backward, for memory; the same bits

  /// Learning rate of step `it`, counted from 0: linear from 0 over the warm-up, then down to min_lr.
  double lr_at(int64_t it) const;
  void check(const ModelConfig& model) const;
};

/// "nano" (6x6 units, for tests), "tiny" (14x14), "base" (28x28: the published model). Throws on other names.
ModelConfig model_preset(const std::string& name);
TrainConfig train_preset(const std::string& name);

/// Name of a site: "h.0.attn", "h.0.mlp", ...
std::string site_name(int site);

void to_json(nlohmann::json& j, const ModelConfig& c);
void from_json(const nlohmann::json& j, ModelConfig& c);
void to_json(nlohmann::json& j, const TrainConfig& c);
void from_json(const nlohmann::json& j, TrainConfig& c);

/// Words for the enumerations above, as they stand in JSON and on the command line. parse throws Error
/// listing what is allowed.
std::string to_word(Tap);
std::string to_word(Distance);
std::string to_word(Aggregation);
std::string to_word(Gelu);
std::string to_word(Schedule);
std::string to_word(DType);
void parse_word(const std::string& word, Tap&);
void parse_word(const std::string& word, Distance&);
void parse_word(const std::string& word, Aggregation&);
void parse_word(const std::string& word, Gelu&);
void parse_word(const std::string& word, Schedule&);
void parse_word(const std::string& word, DType&);

}  // namespace topolm
