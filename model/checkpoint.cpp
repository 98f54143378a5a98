#include "model/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "engine/safetensors.h"

namespace topolm {

namespace {

constexpr const char* kPrefix = "checkpoint-";

/// The step in "checkpoint-000300"; nullopt for other names, "….partial" among them.
std::optional<int64_t> step_of(const fs::path& directory) {
  const std::string name = directory.filename().string();
  if (!name.starts_with(kPrefix)) return {};
  const char *begin = name.data() + std::string_view(kPrefix).size(), *end = name.data() + name.size();
  int64_t step = 0;
  const auto [stop, error] = std::from_chars(begin, end, step);
  if (error != std::errc{} || stop != end) return {};
  return step;
}

/// Checkpoints of `out`, oldest first.
std::vector<std::pair<int64_t, fs::path>> list_checkpoints(const fs::path& out) {
  std::vector<std::pair<int64_t, fs::path>> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(out, error))
    if (const auto step = step_of(entry.path()); step && entry.is_directory())
      found.emplace_back(*step, entry.path());
  std::sort(found.begin(), found.end());
  return found;
}

/// Tensors of the device, read from it as they are written: copies of base's moments would be 1 GB.
class Collector {
 public:
  explicit Collector(Device& device) : device_(device) { device.synchronize(); }
  void add(std::string name, const Tensor& t) {
    list_.push_back({std::move(name), t.dtype, t.shape, nullptr});
    tensors_.push_back(t);
  }
  void add(std::string name, const std::vector<Position>& positions) {
    list_.push_back({std::move(name), DType::i32, Shape{std::ssize(positions), 2}, positions.data()});
    tensors_.emplace_back();
  }
  void write(const fs::path& path, const std::map<std::string, std::string>& metadata = {}) const {
    write_safetensors(path, list_, metadata, [this](size_t i, int64_t begin, std::span<std::byte> to) {
      const Tensor& t = tensors_[i];
      const int64_t width = size_of(t.dtype);
      device_.download(to.data(), t.view({t.elements(), 1}).row_range(begin / width, std::ssize(to) / width));
    });
  }

 private:
  Device& device_;
  std::vector<HostTensor> list_;
  std::vector<Tensor> tensors_;
};

nlohmann::json read_json(const fs::path& path) {
  try {
    return nlohmann::json::parse(read_file(path));
  } catch (const nlohmann::json::exception& e) {
    fail("'{}' is not valid JSON ({}); the checkpoint is damaged, use an older one", path.string(), e.what());
  }
}

void read_parameters(const SafetensorsFile& file, const std::string& prefix, const ModelConfig& config,
                     const std::function<void(const ParameterInfo&, const HostTensor&)>& f) {
  for (const ParameterInfo& info : parameter_list(config)) {
    const HostTensor& t = file.get(prefix + info.name);
    require(t.dtype == DType::f32 && t.shape == info.shape,
            "'{}': {} is {} {}, but the configuration makes it fp32 {}; the files are not of one model",
            file.path().string(), t.name, name_of(t.dtype), t.shape.str(), info.shape.str());
    f(info, t);
    file.forget({static_cast<const std::byte*>(t.data), static_cast<size_t>(t.bytes())});
  }
}

auto uploads(Device& device, Parameters& parameters) {
  return [&](const ParameterInfo& info, const HostTensor& t) { device.upload(info.in(parameters), t.data); };
}

}  // namespace

fs::path save_checkpoint(const fs::path& out, TopoLM& model, Optimizer& optimizer, const TrainerState& state,
                         const std::string& tokenizer, int keep) {
  const fs::path final = out / fmt::format("{}{:06}", kPrefix, state.step);
  if (fs::exists(final)) return final;  // the same step of the same run
  fs::path partial = final;
  partial += ".partial";
  std::error_code error;
  fs::remove_all(partial, error);
  make_directories(partial);
  try {
    Device& device = model.kernels().device();
    {
      Collector tensors(device);
      for (const ParameterInfo& info : parameter_list(model.config()))
        tensors.add(info.name, info.in(model.weights().fp32()));
      for (int site = 0; site < model.config().sites(); ++site)
        tensors.add(positions_name(site), model.sheets()[static_cast<size_t>(site)].positions());
      tensors.write(partial / "model.safetensors", {{"format", "topolm"}});
    }
    {
      Collector tensors(device);
      for (const ParameterInfo& info : parameter_list(model.config())) {
        tensors.add("m." + info.name, info.in(optimizer.m()));
        tensors.add("v." + info.name, info.in(optimizer.v()));
      }
      tensors.write(partial / "optimizer.safetensors");
    }
    write_file(partial / "config.json", nlohmann::json(model.config()).dump(2) + "\n");
    const nlohmann::json trainer = {{"step", state.step}, {"train", state.train}, {"data", state.data}};
    write_file(partial / "trainer.json", trainer.dump(2) + "\n");
    if (!tokenizer.empty()) write_file(partial / "tokenizer.json", tokenizer);
    sync_directory(partial);
    fs::rename(partial, final, error);
    require(!error, "cannot rename '{}' to '{}': {}", partial.string(), final.string(), error.message());
    sync_directory(out);
  } catch (...) {
    fs::remove_all(partial, error);  // a full disk should not stay full of half a checkpoint
    throw;
  }
  if (keep > 0) {
    const auto all = list_checkpoints(out);
    for (size_t i = 0; i + static_cast<size_t>(keep) < all.size(); ++i) fs::remove_all(all[i].second, error);
  }
  return final;
}

void remove_checkpoints(const fs::path& out) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(out, error))
    if (entry.path().filename().string().starts_with(kPrefix)) fs::remove_all(entry.path(), error);
}

std::optional<fs::path> find_checkpoint(const fs::path& path) {
  if (fs::exists(path / "model.safetensors")) return path;
  const auto all = list_checkpoints(path);
  if (all.empty()) return {};
  return all.back().second;
}

ModelConfig load_config(const fs::path& checkpoint) {
  const fs::path path = checkpoint / "config.json";
  try {
    auto config = read_json(path).get<ModelConfig>();
    config.check();
    return config;
  } catch (const Error& e) {
    if (std::string_view(e.what()).find(path.string()) != std::string_view::npos) throw;
    fail("'{}': {}", path.string(), e.what());
  }
}

TrainerState load_trainer_state(const fs::path& checkpoint) {
  const fs::path path = checkpoint / "trainer.json";
  const nlohmann::json j = read_json(path);
  require(j.is_object() && j.value("step", nlohmann::json()).is_number_integer() && j.contains("train"),
          "'{}' is not the state of a training run; it needs 'step' and 'train'", path.string());
  return {j.at("step").get<int64_t>(), j.at("train").get<TrainConfig>(), j.value("data", nlohmann::json())};
}

std::vector<Sheet> load_sheets(const fs::path& checkpoint, const ModelConfig& config) {
  return make_sheets(config, (checkpoint / "model.safetensors").string(), 0);
}

void read_weights(const fs::path& checkpoint, const ModelConfig& config,
                  const std::function<void(const ParameterInfo&, const HostTensor&)>& f) {
  read_parameters(SafetensorsFile(checkpoint / "model.safetensors"), "", config, f);
}

void load_weights(const fs::path& checkpoint, const ModelConfig& config, Device& device, Weights& weights) {
  read_weights(checkpoint, config, uploads(device, weights.fp32()));
  weights.refresh();
}

void load_optimizer(const fs::path& checkpoint, const ModelConfig& config, Device& device,
                    Optimizer& optimizer) {
  const SafetensorsFile file(checkpoint / "optimizer.safetensors");
  read_parameters(file, "m.", config, uploads(device, optimizer.m()));
  read_parameters(file, "v.", config, uploads(device, optimizer.v()));
}

}  // namespace topolm
