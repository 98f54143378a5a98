#include "model/activations.h"

#include <algorithm>
#include <string>

namespace topolm {

namespace {

// Logits exist for this many rows at a time: enough to fill the matrix kernels, too few for B*T*V to matter.
constexpr int64_t kHeadRows = 512;

/// The moments of a step, in order. An operation's tensors are needed at its moment, all of them.
struct Timeline {
  int layers;

  // forward: a branch up to its addition and the LayerNorm after it; then the head, both ways
  int attention(int block) const { return 2 * block; }
  int mlp(int block) const { return 2 * block + 1; }
  int head() const { return 2 * layers; }
  // backward: the last LayerNorm, then five moments a block, the last block first, then the embedding
  enum Part { mlp_output, gelu, mlp_input, attention_output, attention_input };
  int last_norm() const { return head() + 1; }
  int backward(int block, Part part) const { return head() + 2 + 5 * (layers - 1 - block) + part; }
  int end() const { return backward(0, attention_input) + 1; }
};

using Needed = std::vector<Moments>;

/// The first `rows` rows of a planned tensor.
void cut(Tensor& t, int64_t rows) {
  if (t) t = t.row_range(0, rows);
}

}  // namespace

void Activations::plan(Arena& arena, const ModelConfig& config, int64_t rows, Purpose purpose) {
  using enum Timeline::Part;
  const int layers = config.n_layer;
  const int64_t c = config.n_embd, k = config.topography.neighborhoods, sites = config.sites();
  const int64_t side = 2 * config.topography.radius - 1, units = side * side;
  const DType f32 = DType::f32, dtype = purpose.dtype;
  const bool training = purpose.training, post = config.topography.tap == Tap::post;
  const Timeline at{layers};

  // Three fates of what the forward needs from one moment to another and block `l`'s backward up to a part.
  const auto held = [&](int from, int until, int l, Timeline::Part part) -> Needed {
    return {{from, training ? at.backward(l, part) : until}};
  };
  const auto restored = [&](int from, int until, int l, Timeline::Part part) -> Needed {
    if (!training) return {{from, until}};
    return {{from, until}, {at.backward(l, mlp_output), at.backward(l, part)}};
  };
  const auto kept = [&](int from, int until, int l, Timeline::Part part) {
    return purpose.recompute ? restored(from, until, l, part) : held(from, until, l, part);
  };
  // A site can be read when the forward is done.
  const auto until_read = [&](bool tapped, int until) { return tapped && !training ? at.head() : until; };

  const auto add = [&](Tensor& t, const char* name, DType type, Shape shape, Needed needed = {}) {
    arena.add(t, name, type, shape, std::move(needed));
  };
  const auto add_each = [&](std::vector<Tensor>& list, const char* name, DType type, Shape shape,
                            const std::vector<Needed>& needed) {
    list.resize(needed.size());
    for (size_t i = 0; i < list.size(); ++i) add(list[i], name, type, shape, needed[i]);
  };

  std::vector<Needed> residual_needed, norm_needed, branch_needed, attention_needed, hidden_needed,
      gelu_needed, spatial_needed;
  for (int l = 0; l < layers; ++l) {
    const int before = std::max(at.mlp(l) - 2, 0), attn = at.attention(l), mlp = at.mlp(l);
    // The input of the block; tapped after the addition, it is the site of the block before.
    const bool site = post && l > 0;
    residual_needed.push_back(site ? held(before, until_read(true, attn), l - 1, mlp_output)
                                   : held(before, attn, l, attention_input));
    const int middle = until_read(post, mlp);
    residual_needed.push_back(post ? kept(attn, middle, l, attention_output)
                                   : restored(attn, middle, l, mlp_input));
    norm_needed.push_back(kept(before, attn, l, attention_input));
    norm_needed.push_back(restored(attn, mlp, l, mlp_input));
    branch_needed.push_back(kept(attn, until_read(!post, attn), l, attention_output));
    branch_needed.push_back(post ? Needed{{mlp, mlp}} : kept(mlp, until_read(!post, mlp), l, mlp_output));
    attention_needed.push_back(kept(attn, attn, l, attention_input));
    hidden_needed.push_back(kept(mlp, mlp, l, gelu));
    gelu_needed.push_back(kept(mlp, mlp, l, mlp_output));
    spatial_needed.push_back(held(attn, attn, l, attention_output));
    spatial_needed.push_back(held(mlp, mlp, l, mlp_output));
  }
  const int last = at.mlp(layers - 1);
  const int last_read = post ? at.backward(layers - 1, mlp_output) : at.last_norm();
  residual_needed.push_back({{last, training ? last_read : until_read(post, last)}});
  norm_needed.push_back({{last, training ? at.last_norm() : at.head()}});

  add(tokens, "tokens", DType::i32, {rows, 1});
  add(targets, "targets", DType::i32, {rows, 1});
  add(order, "token order", DType::i32, {rows, 1});
  add(members, "neighborhoods", DType::i32, {sites * k, units});
  add(token_losses, "token losses", f32, {rows, 1});
  add_each(residual, "residual", f32, {rows, c}, residual_needed);
  add_each(norm, "norm", dtype, {rows, c}, norm_needed);
  add_each(mean, "mean, rstd", f32, {rows, 1}, norm_needed);
  add_each(rstd, "mean, rstd", f32, {rows, 1}, norm_needed);
  add_each(branch, "branch", dtype, {rows, c}, branch_needed);
  add_each(qkv, "qkv", dtype, {rows, 3 * c}, attention_needed);
  add_each(logsumexp, "logsumexp", f32, {rows, config.n_head}, attention_needed);
  add_each(attention, "attention", dtype, {rows, c}, attention_needed);
  add_each(hidden, "hidden", dtype, {rows, 4 * c}, hidden_needed);
  add_each(hidden_gelu, "hidden_gelu", dtype, {rows, 4 * c}, gelu_needed);
  add_each(spatial_mean, "spatial mean", f32, {c}, spatial_needed);
  add_each(spatial_gradient, "spatial gradient", f32, {k, units, units}, spatial_needed);
  add(logits, "logits", dtype, {std::min(rows, kHeadRows), config.vocab_size}, {{at.head(), at.head()}});
  if (!training) return;

  const auto each_block = [&](std::initializer_list<std::pair<Timeline::Part, Timeline::Part>> parts) {
    Needed needed;
    for (int l = layers - 1; l >= 0; --l)
      for (const auto& [first, until] : parts)
        needed.push_back({at.backward(l, first), at.backward(l, until)});
    return needed;
  };
  const Needed branch_gradient = each_block({{mlp_output, gelu}, {attention_output, attention_output}});
  add(dresidual, "dresidual", f32, {rows, c}, {{at.last_norm(), at.end()}});
  if (!post) add(dbranch, "dbranch", f32, {rows, c}, branch_gradient);
  if (dtype != f32) add(dbranch_operand, "dbranch_operand", dtype, {rows, c}, branch_gradient);
  add(dnorm, "dnorm", dtype, {rows, c}, {{at.head(), at.end()}});
  add(dqkv, "dqkv", dtype, {rows, 3 * c}, each_block({{attention_input, attention_input}}));
  add(dattention, "dattention", dtype, {rows, c}, each_block({{attention_output, attention_input}}));
  add(dhidden, "dhidden", dtype, {rows, 4 * c}, each_block({{gelu, mlp_input}}));
}

Activations Activations::of_batch(int64_t batch, int64_t time, int n_head) const {
  const int64_t rows = batch * time;
  Activations b = *this;
  for (Tensor* t : {&b.tokens, &b.targets, &b.order, &b.token_losses, &b.dresidual, &b.dbranch,
                    &b.dbranch_operand, &b.dnorm, &b.dqkv, &b.dattention, &b.dhidden})
    cut(*t, rows);
  for (auto* list : {&b.residual, &b.norm, &b.mean, &b.rstd, &b.branch, &b.qkv, &b.logsumexp, &b.attention,
                     &b.hidden, &b.hidden_gelu})
    for (Tensor& t : *list) cut(t, rows);

  for (Tensor* t : {&b.tokens, &b.targets}) *t = t->view({batch, time});
  for (auto* list : {&b.mean, &b.rstd})
    for (Tensor& t : *list) t = t.view({rows});
  for (auto* list : {&b.qkv, &b.attention})
    for (Tensor& t : *list) t = t.view({batch, time, t.cols()});
  for (Tensor& t : b.logsumexp) t = t.view({batch, n_head, time});
  for (Tensor* t : {&b.dqkv, &b.dattention})
    if (*t) *t = t->view({batch, time, t->cols()});
  return b;
}

}  // namespace topolm
