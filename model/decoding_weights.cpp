#include "model/decoding_weights.h"

#include <algorithm>
#include <cstring>

#include "engine/error.h"
#include "model/checkpoint.h"

namespace topolm {

namespace {

constexpr int64_t kBufferElements = 1 << 20;  // of a matrix on its way: 4 MB on the host, 4 on the device

/// Of a matrix product: every matrix but the table of positions.
bool is_operand(const ParameterInfo& info) { return info.is_matrix() && info.outer != &Parameters::wpe; }

/// Elements [first, first + count) of the scales of a matrix.
Tensor scale_rows(const Tensor& scale, int64_t first, int64_t count) {
  return scale.view({scale.elements(), 1}).row_range(first, count).view({count});
}

/// The site whose outputs are the rows of this matrix; -1: of none.
int site_of(const ParameterInfo& info) {
  return info.inner == &BlockParameters::attn_proj  ? 2 * info.block
         : info.inner == &BlockParameters::mlp_proj ? 2 * info.block + 1
                                                    : -1;
}

}  // namespace

DecodingWeights::DecodingWeights(Kernels& kernels, const ModelConfig& config, DType dtype, bool int8)
    : kernels_(kernels),
      config_(config),
      list_(parameter_list(config)),
      int8_(int8),
      arena_(kernels.device(), "the weights") {
  for (Parameters* p : {&fp32_, &operands_, &scales_}) p->h.resize(static_cast<size_t>(config.n_layer));
  if (int8) dtype = DType::i8;
  for (const ParameterInfo& info : list_) {
    const bool operand = is_operand(info), looked_up = info.outer == &Parameters::wte && dtype == DType::bf16;
    if (operand) {
      arena_.add(info.in(operands_), info.name, dtype, info.shape);
      streamed_bytes_ += info.in(operands_).bytes();
    }
    if (operand && int8) {
      arena_.add(info.in(scales_), "scale of " + info.name, DType::f32, {info.shape[0]});
      streamed_bytes_ += info.in(scales_).bytes();
    }
    if (!operand || looked_up) arena_.add(info.in(fp32_), info.name, DType::f32, info.shape);
  }
  arena_.commit();
  if (dtype == DType::f32) fp32_.wte = operands_.wte;
  if (int8) {  // refuses, where it does, before a file has been read
    const Tensor& norm = fp32_.ln_f;
    kernels.quantize_rows(operands_.wte.row_range(0, 1), scale_rows(scales_.wte, 0, 1),
                          norm.view({1, norm.elements()}));
  }
}

void DecodingWeights::store(const ParameterInfo& info, int64_t first_row, const Tensor& rows) {
  const int64_t count = rows.rows();
  const Tensor operand = info.in(operands_), plain = info.in(fp32_);
  if (operand && int8_)
    kernels_.quantize_rows(operand.row_range(first_row, count),
                           scale_rows(info.in(scales_), first_row, count), rows);
  else if (operand)
    kernels_.cast(operand.row_range(first_row, count), rows);
  if (plain && plain.data != operand.data) kernels_.cast(plain.row_range(first_row, count), rows);
}

void DecodingWeights::load(const fs::path& checkpoint, std::span<const Intervention> interventions) {
  const auto gains = unit_gains(interventions, config_);
  Tensor buffer;
  Arena arena(kernels_.device(), "a matrix that is being read");
  int64_t most = kBufferElements;
  for (const ParameterInfo& info : list_) most = std::max(most, info.shape.back());
  arena.add(buffer, "rows", DType::f32, {most});
  arena.commit();
  std::vector<float> values(static_cast<size_t>(most));

  read_weights(checkpoint, config_, [&](const ParameterInfo& info, const HostTensor& t) {
    const int64_t cols = t.shape.back(), rows = t.shape.elements() / cols;
    const auto gain = gains.find(site_of(info));
    for (int64_t first = 0, count; first < rows; first += count) {
      count = std::min(rows - first, most / cols);
      const auto elements = static_cast<size_t>(count * cols);
      std::memcpy(values.data(), static_cast<const char*>(t.data) + 4 * first * cols, 4 * elements);
      if (gain != gains.end())
        for (size_t i = 0; i < elements; ++i)
          values[i] *= gain->second[static_cast<size_t>(first) + i / static_cast<size_t>(cols)];
      const Tensor block{buffer.data, DType::f32, {count, cols}};
      kernels_.device().upload(block, values.data());
      store(info, first, block);
    }
  });
  kernels_.device().synchronize();  // the buffer goes
}

void DecodingWeights::look_up(const Tensor& out, std::span<const int32_t> tokens) const {
  Device& device = kernels_.device();
  const auto cols = static_cast<size_t>(config_.n_embd);
  std::vector<int8_t> row(cols);
  std::vector<float> values(tokens.size() * cols);
  for (size_t i = 0; i < tokens.size(); ++i) {
    require(tokens[i] >= 0 && tokens[i] < config_.vocab_size,
            "token id {} at position {} is outside the vocabulary of {}", tokens[i], i, config_.vocab_size);
    float scale = 0;
    device.download(row.data(), operands_.wte.row_range(tokens[i], 1));
    device.download(&scale, scale_rows(scales_.wte, tokens[i], 1));
    for (size_t j = 0; j < cols; ++j) values[i * cols + j] = scale * row[j];
  }
  device.upload(out.row_range(0, std::ssize(tokens)), values.data());
}

}  // namespace topolm
