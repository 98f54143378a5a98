// Checkpoints: OUT/checkpoint-000300/ with model.safetensors, config.json, tokenizer.json and, to resume,
// optimizer.safetensors and trainer.json. Written as checkpoint-000300.partial and renamed when all of it is
// on the disk: a kill or a full disk leaves the one before it whole.
#pragma once

#include <nlohmann/json.hpp>

#include <functional>
#include <optional>
#include <string>

#include "engine/file.h"
#include "engine/safetensors.h"
#include "model/optimizer.h"
#include "model/topolm.h"

namespace topolm {

/// What trainer.json holds: everything that a resumed run needs beside the tensors.
struct TrainerState {
  int64_t step = 0;  // optimizer steps done
  TrainConfig train;
  nlohmann::json data;  // what it was trained on: path, tokens
};

/// Writes OUT/checkpoint-STEP and removes older ones but the last `keep` (0 keeps all). `tokenizer` is the
/// text of a tokenizer.json, or empty. Returns the directory.
fs::path save_checkpoint(const fs::path& out, TopoLM& model, Optimizer& optimizer, const TrainerState& state,
                         const std::string& tokenizer, int keep);

/// `path` itself if it holds a model, else its newest checkpoint; nullopt when there is none.
std::optional<fs::path> find_checkpoint(const fs::path& path);

/// Removes every checkpoint of `out`, half-written ones too.
void remove_checkpoints(const fs::path& out);

/// Each throws Error naming the file when it is missing, damaged, or of another shape.
ModelConfig load_config(const fs::path& checkpoint);
TrainerState load_trainer_state(const fs::path& checkpoint);
std::vector<Sheet> load_sheets(const fs::path& checkpoint, const ModelConfig& config);
/// Calls f with each parameter, in order: fp32, of the shape that the configuration gives it; its data as
/// SafetensorsFile::get has them.
void read_weights(const fs::path& checkpoint, const ModelConfig& config,
                  const std::function<void(const ParameterInfo&, const HostTensor&)>& f);
void load_weights(const fs::path& checkpoint, const ModelConfig& config, Device& device, Weights& weights);
void load_optimizer(const fs::path& checkpoint, const ModelConfig& config, Device& device,
                    Optimizer& optimizer);

}  // namespace topolm
