// The parameters of a TopoLM, and everything that has their shape: gradients, moments, bf16 copies.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/arena.h"
#include "model/config.h"

namespace topolm {

/// One transformer block. Linear weights are [out, in]; c_attn's rows are [q; k; v].
struct BlockParameters {
  Tensor ln_1, c_attn, attn_proj, ln_2, c_fc, mlp_proj;
};

/// The head is wte itself.
struct Parameters {
  Tensor wte, wpe;
  std::vector<BlockParameters> h;
  Tensor ln_f;
};

/// A parameter's official name, shape, and the standard deviation of its initial values (0: all ones).
struct ParameterInfo {
  std::string name;  // "transformer.h.0.attn.c_attn.weight"
  Shape shape;
  double deviation;
  Tensor Parameters::*outer;       // where it is, in Parameters ...
  Tensor BlockParameters::*inner;  // ... or in h[block]
  int block;

  Tensor& in(Parameters& p) const { return outer ? p.*outer : p.h[static_cast<size_t>(block)].*inner; }
  const Tensor& in(const Parameters& p) const {
    return outer ? p.*outer : p.h[static_cast<size_t>(block)].*inner;
  }
  bool is_matrix() const { return shape.rank() == 2; }  // decayed by AdamW; the others are LayerNorm weights
};

/// All parameters in checkpoint order. Linear and embedding weights start as N(0, 0.02^2), the projections
/// back into the residual stream as N(0, (0.02 / sqrt(2 n_layer))^2), LayerNorm weights as 1.
std::vector<ParameterInfo> parameter_list(const ModelConfig& config);

/// Parameters in one block of device memory. `matrices_only` leaves the others empty (the bf16 copies).
struct ParameterArena {
  ParameterArena(Device& device, const ModelConfig& config, const std::string& name, DType dtype = DType::f32,
                 bool matrices_only = false);
  Arena arena;
  Parameters tensors;
};

/// The weights in fp32, and what matrix products read: the same tensors, or bf16 copies of the matrices.
class Weights {
 public:
  Weights(Kernels& kernels, const ModelConfig& config, DType dtype);

  Parameters& fp32() { return masters_.tensors; }
  const Parameters& fp32() const { return masters_.tensors; }
  const Parameters& operands() const { return operands_; }
  /// The bf16 copy of a matrix; an empty tensor for LayerNorm weights and in fp32.
  Tensor bf16_copy(const ParameterInfo& info) const;
  /// Makes the copies again, after anything but AdamW, which writes both, has changed the weights.
  void refresh();

  std::vector<const Arena*> arenas() const;

  /// Initial values: a function of the seed and the parameter's place in the list alone.
  void initialise(uint64_t seed);

 private:
  Kernels& kernels_;
  std::vector<ParameterInfo> list_;
  ParameterArena masters_;
  std::unique_ptr<ParameterArena> copies_;
  Parameters operands_;
};

}  // namespace topolm
