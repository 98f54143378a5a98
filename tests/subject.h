// A small untrained model with a tokenizer of its own: something to measure.
#pragma once

#include <array>
#include <string>

#include "model/trainer.h"
#include "tests/temporary.h"
#include "tokenizer/bpe_trainer.h"
#include "tokenizer/tokenizer_files.h"

namespace topolm {

/// The text of a tokenizer.json learnt from a few lines.
inline std::string small_tokenizer(int32_t vocab_size) {
  const TemporaryDirectory directory;
  const std::array<std::string_view, 2> documents = {
      "the cats see the dog and the dog sees the cats; the dogs near the cat are old and the cat is old",
      "she has never seen the sea, he has seen the sea and the old house near the sea"};
  ThreadPool pool(1);
  save_tokenizer(train_bpe(documents, vocab_size, pool), directory / "tokenizer.json");
  return read_file(directory / "tokenizer.json");
}

/// Writes a checkpoint of a nano model into `out`: 2 blocks, 4 sites of 36 units, a context of 64, ids to
/// 319.
inline fs::path write_subject(const fs::path& out, const std::string& tokenizer = small_tokenizer(300),
                              Tap tap = Tap::pre) {
  ModelConfig config = model_preset("nano");
  config.vocab_size = 320;
  config.topography.tap = tap;
  TrainConfig train = train_preset("nano");
  train.batch = 1, train.seq = 8;
  const auto kernels = make_kernels({"cpu", 1, ""});
  Trainer trainer(*kernels, config, train, make_sheets(config, "random", 1));
  return trainer.save(out, {}, tokenizer, 1);
}

/// The network of a checkpoint, opened without the help of what is tested.
inline std::unique_ptr<TopoLM> open_network(Kernels& kernels, const fs::path& checkpoint) {
  const ModelConfig config = load_config(checkpoint);
  auto network =
      std::make_unique<TopoLM>(kernels, config, load_sheets(checkpoint, config), 16, 64, DType::f32, false);
  load_weights(checkpoint, config, kernels.device(), network->weights());
  return network;
}

}  // namespace topolm
