#include "kernels/attention_sizes.h"

#include "engine/error.h"

namespace topolm {

namespace {

int64_t head_size(const char* operation, int64_t width, int n_head) {
  require(n_head > 0 && width % n_head == 0, "{}: {} columns cannot be shared by {} heads", operation, width,
          n_head);
  return width / n_head;
}

}  // namespace

AttentionSizes check_attention(const char* operation, const Tensor& out, const Tensor& qkv,
                               const Tensor& logsumexp, int n_head) {
  require(out.shape.rank() == 3, "{}: out is {}, not [B, T, C]", operation, out.shape.str());
  const int64_t batch = out.shape[0], length = out.shape[1], width = out.shape[2];
  check_shape(operation, "qkv", qkv, {batch, length, 3 * width});
  check_shape(operation, "logsumexp", logsumexp, {batch, n_head, length});
  return {batch, length, width, head_size(operation, width, n_head)};
}

AttentionSizes check_attention_cached(const Tensor& out, const Tensor& key_cache, const Tensor& value_cache,
                                      const Tensor& qkv, const Tensor& position, int n_head) {
  const char* const operation = "attention_cached";
  const int64_t length = out.rows(), width = out.cols(), longest = key_cache.rows();
  check_shape(operation, "qkv", qkv.view({qkv.rows(), qkv.cols()}), {length, 3 * width});
  check_shape(operation, "key_cache", key_cache, {longest, width});
  check_shape(operation, "value_cache", value_cache, {longest, width});
  require(key_cache.dtype == value_cache.dtype, "{}: key_cache holds {}, but value_cache {}", operation,
          name_of(key_cache.dtype), name_of(value_cache.dtype));
  check_shape(operation, "position", position, {1});
  (void)position.i32();
  require(length <= longest, "{}: {} rows do not fit into caches of {}", operation, length, longest);
  return {1, length, width, head_size(operation, width, n_head)};
}

}  // namespace topolm
