// ./bench --operations: every operation of kernels/kernels.h at the shapes of a preset, beside its floor.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "model/config.h"
#include "tools/bench/ceilings.h"

namespace topolm::bench {

/// One tensor of a call, and how often its bytes cross to or from memory at the least.
struct Operand {
  enum class Use { in, out, both };
  /// position: the middle of the context.
  enum class Content { numbers, tokens, order, members, position, zero };

  Use use;
  DType dtype;
  Shape shape;
  Content content = Content::numbers;
  /// Elements that are read or written, where not all are: rows of an embedding.
  int64_t touched = -1;

  int64_t bytes() const { return (touched < 0 ? shape.elements() : touched) * size_of(dtype); }
};

/// A call of an operation. Bytes: of each operand once, or twice where it is read and written. FLOPs: of
/// matrix products only; what is computed element by element hides behind its bytes, or should.
struct Case {
  std::string name, shape, dtype;
  double calls = 1;  // a step, or a decoded token
  double flops = 0;
  std::vector<Operand> operands;
  std::function<void(const std::vector<Tensor>&)> run;
  bool within_other = false;  // a step calls it as a part of a fused operation

  double bytes() const;
  double bytes_read() const;
};

struct Measured {
  const Case* what;
  Samples seconds;
  bool refused = false;  // the device does not have it
  /// Seconds: what the arithmetic takes at its peak, what is read at the speed of reading, or all bytes at
  /// that of the fastest stream, whichever is the longest.
  double floor = 0;
  bool by_flops = false;

  double best() const { return seconds.low(); }
  double rate() const { return what->flops / seconds.median(); }
};

/// Calls of a training step, or of one decoded token in the middle of the context.
std::vector<Case> step_cases(Kernels& k, const ModelConfig& m, int64_t batch, int64_t time, DType dtype);
std::vector<Case> decoding_cases(Kernels& k, const ModelConfig& m, DType dtype);

/// Operands are cold: calls go round as many copies as caches cannot hold.
Measured measure(const Options& o, Kernels& k, const ModelConfig& m, const Case& c, const Ceilings& ceilings);

/// The tables of --operations, printed as they are measured, and their JSON.
nlohmann::json measure_operations(const Options& o, const std::string& preset, const std::string& dtype,
                                  const Ceilings& c);

/// FLOP/s of all matrix products of a step together: their FLOPs over their time.
double product_speed(const Options& o, const std::string& preset, const std::string& dtype,
                     const Ceilings& c);

}  // namespace topolm::bench
