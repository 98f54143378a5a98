// Which operations a training step and a decoded token call, with what: as model/topolm.cpp and
// model/generator.cpp do.
#include <algorithm>

#include "tools/bench/operations.h"

namespace topolm::bench {

namespace {

using Use = Operand::Use;
using Content = Operand::Content;
using Tensors = const std::vector<Tensor>&;

Operand in(DType dtype, Shape shape, Content content = Content::numbers) {
  return {Use::in, dtype, shape, content};
}
Operand out(DType dtype, Shape shape) { return {Use::out, dtype, shape, Content::zero}; }
Operand both(DType dtype, Shape shape, Content content = Content::numbers) {
  return {Use::both, dtype, shape, content};
}
/// Of which only some rows are looked at.
Operand rows_of(Operand operand, int64_t rows) {
  operand.touched = std::min(rows, operand.shape[0]) * operand.shape.back();
  return operand;
}

constexpr DType f32 = DType::f32, i32 = DType::i32;
constexpr int64_t kHeadRows = 512;  // of logits at a time, as in model/topolm.cpp

struct Layer {
  std::string name;
  int64_t in, out, rows;
  double calls;
};

std::vector<Layer> layers(const ModelConfig& m, int64_t rows, int64_t head_rows) {
  const int64_t c = m.n_embd;
  const double l = m.n_layer;
  return {{"c_attn", c, 3 * c, rows, l},
          {"attn_proj", c, c, rows, l},
          {"c_fc", c, 4 * c, rows, l},
          {"mlp_proj", 4 * c, c, rows, l},
          {"head", c, m.vocab_size, head_rows, static_cast<double>(ceil_div(rows, head_rows))}};
}

std::string shape_of(const Layer& l) { return fmt::format("{} {}: {} -> {}", l.name, l.rows, l.in, l.out); }

double flops_of(const Layer& l) {
  return 2 * static_cast<double>(l.rows) * static_cast<double>(l.in) * static_cast<double>(l.out);
}

void add_products(std::vector<Case>& cases, Kernels& k, const ModelConfig& m, int64_t rows, DType dtype) {
  const std::string word = to_word(dtype);
  for (const Layer& l : layers(m, rows, std::min(rows, kHeadRows))) {
    const Operand x = in(dtype, {l.rows, l.in}), w = in(dtype, {l.out, l.in}),
                  dy = in(dtype, {l.rows, l.out});
    const auto add = [&](const char* name, std::vector<Operand> operands, auto&& run) {
      cases.push_back({name, shape_of(l), word, l.calls, flops_of(l), std::move(operands), run});
    };
    add("linear_forward", {out(dtype, {l.rows, l.out}), x, w},
        [&k](Tensors t) { k.linear_forward(t[0], t[1], t[2]); });
    add("linear_backward_input", {out(dtype, {l.rows, l.in}), dy, w},
        [&k](Tensors t) { k.linear_backward_input(t[0], t[1], t[2]); });
    add("linear_backward_weight", {both(f32, {l.out, l.in}), dy, x},
        [&k](Tensors t) { k.linear_backward_weight(t[0], t[1], t[2]); });
    if (l.name == "c_fc")
      add("linear_gelu_forward", {out(dtype, {l.rows, l.out}), out(dtype, {l.rows, l.out}), x, w},
          [&k, kind = m.gelu](Tensors t) { k.linear_gelu_forward(t[0], t[1], t[2], t[3], kind); });
    if (l.name == "mlp_proj")
      add("linear_gelu_backward", {out(dtype, {l.rows, l.in}), dy, w, in(dtype, {l.rows, l.in})},
          [&k, kind = m.gelu](Tensors t) { k.linear_gelu_backward(t[0], t[1], t[2], t[3], kind); });
  }
}

/// FLOPs of the products of a site and direction: over the units of each neighborhood, or over the whole
/// sheet at once where that is less. Forward a symmetric matrix, so half of it; backward a product with it.
double spatial_flops(const ModelConfig& m, int64_t rows, bool backward) {
  const TopographyConfig& t = m.topography;
  const double n = (2.0 * t.radius - 1) * (2.0 * t.radius - 1), c = m.n_embd, k = t.neighborhoods;
  const double gathered = backward ? 2 * k * n * n : k * n * (n + 1),
               dense = backward ? 2 * c * c : c * (c + 1);
  return static_cast<double>(rows) * std::min(gathered, dense);
}

}  // namespace

double Case::bytes() const {
  double sum = 0;
  for (const Operand& o : operands) sum += static_cast<double>(o.bytes()) * (o.use == Use::both ? 2 : 1);
  return sum;
}

double Case::bytes_read() const {
  double sum = 0;
  for (const Operand& o : operands)
    if (o.use != Use::out) sum += static_cast<double>(o.bytes());
  return sum;
}

std::vector<Case> step_cases(Kernels& k, const ModelConfig& m, int64_t batch, int64_t time, DType dtype) {
  const int64_t n = batch * time, c = m.n_embd, v = m.vocab_size, heads = m.n_head, p = m.parameters();
  const int64_t side = 2 * m.topography.radius - 1, units = side * side, hoods = m.topography.neighborhoods;
  const double blocks = m.n_layer, sites = m.sites();
  const std::string word = to_word(dtype), rows = fmt::format("{} x {}", n, c);
  std::vector<Case> cases;
  const auto add = [&](const char* name, const std::string& shape, double calls, double flops,
                       std::vector<Operand> operands, auto&& run) {
    // Correlations are of fp32 whatever the operands of the network's own products are.
    const bool fp32 = std::string_view(name).starts_with("spatial");
    cases.push_back({name, shape, fp32 ? "fp32" : word, calls, flops, std::move(operands), run});
  };
  const Operand x = in(f32, {n, c}), branch = in(dtype, {n, c}), y = out(f32, {n, c}), weight = in(f32, {c}),
                row = in(f32, {n});
  add_products(cases, k, m, n, dtype);

  // Causal: query t meets t + 1 keys. Forward two products, backward five: the scores are computed again.
  const double pairs = static_cast<double>(n) * static_cast<double>(time + 1) * static_cast<double>(c);
  const std::string heads_shape = fmt::format("{} x {}, {} heads of {}", batch, time, heads, m.head_size());
  const Operand qkv = in(dtype, {batch, time, 3 * c}), attended = in(dtype, {batch, time, c});
  const Shape lse = {batch, heads, time};
  add("attention_forward", heads_shape, blocks, 2 * pairs, {out(dtype, {batch, time, c}), out(f32, lse), qkv},
      [&k, heads](Tensors t) { k.attention_forward(t[0], t[1], t[2], static_cast<int>(heads)); });
  add("attention_backward", heads_shape, blocks, 5 * pairs,
      {out(dtype, {batch, time, 3 * c}), attended, qkv, attended, in(f32, lse)}, [&k, heads](Tensors t) {
        k.attention_backward(t[0], t[1], t[2], t[3], t[4], static_cast<int>(heads));
      });

  const std::string wide = fmt::format("{} x {}", n, 4 * c);
  add("gelu_forward", wide, blocks, 0, {out(dtype, {n, 4 * c}), in(dtype, {n, 4 * c})},
      [&k, kind = m.gelu](Tensors t) { k.gelu_forward(t[0], t[1], kind); });
  add("gelu_backward", wide, blocks, 0,
      {out(dtype, {n, 4 * c}), in(dtype, {n, 4 * c}), in(dtype, {n, 4 * c})},
      [&k, kind = m.gelu](Tensors t) { k.gelu_backward(t[0], t[1], t[2], kind); });

  add("layernorm_forward", rows, 1, 0, {out(dtype, {n, c}), out(f32, {n}), out(f32, {n}), x, weight},
      [&k](Tensors t) { k.layernorm_forward(t[0], t[1], t[2], t[3], t[4]); });
  add("residual_layernorm_forward", rows, 2 * blocks, 0,
      {y, out(dtype, {n, c}), out(f32, {n}), out(f32, {n}), x, branch, weight},
      [&k](Tensors t) { k.residual_layernorm_forward(t[0], t[1], t[2], t[3], t[4], t[5], t[6]); });
  add("layernorm_backward", rows, 2 * blocks + 1, 0,
      {both(f32, {n, c}), both(f32, {c}), in(dtype, {n, c}), x, weight, row, row},
      [&k](Tensors t) { k.layernorm_backward(t[0], t[1], t[2], t[3], t[4], t[5], t[6]); });

  const int64_t chunk = std::min(n, kHeadRows);
  const auto chunks = static_cast<double>(ceil_div(n, chunk));
  const std::string logits = fmt::format("{} x {}", chunk, v);
  add("cross_entropy_forward", logits, 0, 0,
      {out(f32, {chunk}), in(dtype, {chunk, v}), in(i32, {chunk}, Content::tokens)},
      [&k](Tensors t) { k.cross_entropy_forward(t[0], t[1], t[2]); });
  add("cross_entropy_backward", logits, chunks, 0,
      {out(f32, {chunk}), both(dtype, {chunk, v}), in(i32, {chunk}, Content::tokens)},
      [&k](Tensors t) { k.cross_entropy_backward(t[0], t[1], t[2], 1); });

  const std::string site = fmt::format("{}, {} x {} units", rows, hoods, units);
  const Operand members = in(i32, {hoods, units}, Content::members);
  add("spatial_loss_forward", site, sites, spatial_flops(m, n, false),
      {out(f32, {1}), out(f32, {c}), out(f32, {hoods, units, units}), branch, members,
       in(f32, {units, units})},
      [&k, a = m.topography.aggregation](Tensors t) {
        k.spatial_loss_forward(t[0], t[1], t[2], t[3], t[4], t[5], a);
      });
  add("spatial_loss_backward", site, sites, spatial_flops(m, n, true),
      {both(f32, {n, c}), branch, weight, in(f32, {hoods, units, units}), members},
      [&k](Tensors t) { k.spatial_loss_backward(t[0], t[1], t[2], t[3], t[4], 1e-3f); });

  const Operand tokens = in(i32, {batch, time}, Content::tokens), position = in(i32, {1}, Content::zero);
  add("embedding_forward", rows + ", tables warm", 1, 0,
      {out(f32, {batch, time, c}), tokens, rows_of(in(f32, {v, c}), n),
       rows_of(in(f32, {m.block_size, c}), time), position},
      [&k](Tensors t) { k.embedding_forward(t[0], t[1], t[2], t[3], t[4]); });
  add("embedding_backward", rows + ", tables warm", 1, 0,
      {rows_of(both(f32, {v, c}), n), rows_of(both(f32, {m.block_size, c}), time), in(f32, {batch, time, c}),
       tokens, in(i32, {n}, Content::order)},
      [&k](Tensors t) { k.embedding_backward(t[0], t[1], t[2], t[3], t[4]); });

  const std::string all = fmt::format("{} parameters", p);
  add("cast", rows, dtype == f32 ? sites : 2 * sites, 0, {out(dtype, {n, c}), x},
      [&k](Tensors t) { k.cast(t[0], t[1]); });
  add("add_scaled", rows, 0, 0, {both(f32, {n, c}), x}, [&k](Tensors t) { k.add_scaled(t[0], t[1], 0.5f); });
  add("sum", fmt::format("{}", n), 1, 0, {out(f32, {1}), row}, [&k](Tensors t) { k.sum(t[0], t[1]); });
  add("sum_of_squares", rows, 0, 0, {out(f32, {1}), x}, [&k](Tensors t) { k.sum_of_squares(t[0], t[1]); });
  add("fill", all, 1, 0, {out(f32, {p})}, [&k](Tensors t) { k.fill(t[0], 0); });
  add("gradient_norm", all, 1, 0, {out(f32, {2}), in(f32, {p})},
      [&k](Tensors t) { k.gradient_norm(t[0], t[1], 1); });
  std::vector<Operand> state = {both(f32, {p}), in(f32, {p}), both(f32, {p}, Content::zero),
                                both(f32, {p}, Content::zero), in(f32, {2})};
  if (dtype != f32) state.push_back(out(dtype, {p}));
  add("adamw", all, 1, 0, std::move(state), [&k](Tensors t) {
    const AdamWTensor one{t[0], t[1], t[2], t[3], t.size() > 5 ? t[5] : Tensor{}, 0.1f};
    k.adamw({&one, 1}, t[4], {1e-4f, 0.9f, 0.95f, 1e-8f, 10});
  });
  for (Case& one : cases)  // the step calls these four as two fused operations
    one.within_other = one.name.starts_with("gelu_") ||
                       (one.name == "linear_forward" && one.shape.starts_with("c_fc")) ||
                       (one.name == "linear_backward_input" && one.shape.starts_with("mlp_proj"));
  return cases;
}

std::vector<Case> decoding_cases(Kernels& k, const ModelConfig& m, DType dtype) {
  const int64_t c = m.n_embd, v = m.vocab_size, position = m.block_size / 2;
  const std::string word = to_word(dtype);
  std::vector<Case> cases;
  for (const Layer& l : layers(m, 1, 1)) {
    const DType y = l.name == "head" ? f32 : dtype;
    cases.push_back({"linear_forward",
                     shape_of(l),
                     word,
                     l.calls,
                     flops_of(l),
                     {out(y, {1, l.out}), in(dtype, {1, l.in}), in(dtype, {l.out, l.in})},
                     [&k](Tensors t) { k.linear_forward(t[0], t[1], t[2]); }});
    if (dtype == f32) continue;
    cases.push_back(
        {"linear_int8_forward",
         shape_of(l),
         "int8",
         l.calls,
         flops_of(l),
         {out(y, {1, l.out}), in(dtype, {1, l.in}), in(DType::i8, {l.out, l.in}), in(f32, {l.out})},
         [&k](Tensors t) { k.linear_int8_forward(t[0], t[1], t[2], t[3]); }});
  }
  const Operand cache = rows_of(both(dtype, {m.block_size, c}), position + 1);
  const double seen = static_cast<double>((position + 1) * c);
  Case attention{
      "attention_cached",
      fmt::format("at position {}", position),
      word,
      double(m.n_layer),
      4 * seen,
      {out(dtype, {1, c}), cache, cache, in(dtype, {1, 3 * c}), in(i32, {1}, Content::position)},
      [&k, heads = m.n_head](Tensors t) { k.attention_cached(t[0], t[1], t[2], t[3], t[4], heads); }};
  for (int i : {1, 2}) attention.operands[i].use = Use::in;  // one row of many is written
  cases.push_back(std::move(attention));
  const Operand x = in(f32, {1, c}), one = out(f32, {1});
  cases.push_back(
      {"residual_layernorm_forward",
       fmt::format("1 x {}", c),
       word,
       2.0 * m.n_layer,
       0,
       {out(f32, {1, c}), out(dtype, {1, c}), one, one, x, x, in(f32, {c})},
       [&k](Tensors t) { k.residual_layernorm_forward(t[0], t[1], t[2], t[3], t[4], t[5], t[6]); }});
  cases.push_back({"gelu_forward",
                   fmt::format("1 x {}", 4 * c),
                   word,
                   double(m.n_layer),
                   0,
                   {out(dtype, {1, 4 * c}), in(dtype, {1, 4 * c})},
                   [&k, kind = m.gelu](Tensors t) { k.gelu_forward(t[0], t[1], kind); }});
  cases.push_back({"sample",
                   fmt::format("{} logits", v),
                   "fp32",
                   1,
                   0,
                   {out(i32, {1}), in(f32, {v}), in(f32, {1}, Content::zero)},
                   [&k](Tensors t) { k.sample(t[0], t[1], t[2], {}); }});
  if (dtype == f32)
    cases.push_back({"quantize_rows",
                     fmt::format("{} x {}", v, c),
                     "int8",
                     0,
                     0,
                     {out(DType::i8, {v, c}), out(f32, {v}), in(f32, {v, c})},
                     [&k](Tensors t) { k.quantize_rows(t[0], t[1], t[2]); }});
  return cases;
}

}  // namespace topolm::bench
