// The programs as a user meets them: what they print and write, and the one sentence for everything that can
// go wrong. Each bad input must end with its own exit status, lose nothing, and say what to do.
#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "engine/random.h"
#include "tests/programs.h"
#include "tests/temporary.h"
#include "tokenizer/tokenizer_files.h"

using namespace topolm;
using nlohmann::json;

namespace {

/// A directory with a tokenized text: train.bin, val.bin, tokenizer.json.
struct Workplace {
  TemporaryDirectory directory;
  Workplace() {
    std::string text;
    Random random(1, Random::Purpose::tests);
    const char* words[] = {"the", "cat", "dog", "sees", "hears", "a", "small", "old", "house", "and"};
    for (int i = 0; i < 6000; ++i)
      text += std::string(words[random.below(10)]) + (i % 12 == 11 ? ".\n" : " ");
    directory.write("text.txt", text);
    const Outcome made =
        run_program("tokenize", path("text.txt") + " -o " + path("data") + " --vocab-size 300");
    REQUIRE_MESSAGE(made.status == 0, made.output);
  }
  std::string path(const std::string& name) const { return (directory / name).string(); }
  Outcome train(const std::string& flags, const std::string& before = "") const {
    return run_program("train_topolm",
                       path("data/train.bin") + " --preset nano --seq 32 --threads 2 " + flags, before);
  }
};

fs::path checkpoint(const std::string& out, int step) {
  return fs::path(out) / fmt::format("checkpoint-{:06}", step);
}

void check_refused(const Outcome& outcome, int status, const std::string& part) {
  CAPTURE(outcome.output);
  CHECK(outcome.status == status);
  CHECK(contains(outcome.output, part));
  const size_t begin = outcome.output.find("error: ");
  REQUIRE(begin != std::string::npos);
  CHECK(outcome.output.find('\n', begin) == outcome.output.size() - 1);  // one sentence, and the last word
}

}  // namespace

TEST_CASE("programs: one argument is enough, and the files are what other tools read") {
  const Workplace place;
  const std::string out = place.path("model");
  const Outcome trained =
      run_program("train_topolm", place.path("data/train.bin") + " --steps 12 --eval-every 6 --out " + out);
  CAPTURE(trained.output);
  REQUIRE(trained.status == 0);
  for (const char* part :
       {"device      ", "raw uint16", "val.bin", "nano", "6x6", "12 steps", "step 12/12", "loss", "spatial",
        "norm", "lr", "tok/s", "% of matrix speed", "ETA", "validation loss"})
    CHECK_MESSAGE(contains(trained.output, part), part);
  CHECK_FALSE(contains(trained.output, "\r"));  // not a terminal: plain lines

  const fs::path dir = checkpoint(out, 12);
  CHECK(json::parse(read_file(dir / "config.json")).at("vocab_size") == 320);  // 300 rounded up to 64s
  CHECK(read_file(dir / "tokenizer.json") == read_file(place.path("data/tokenizer.json")));
  const std::string csv = read_file(fs::path(out) / "metrics.csv"),
                    jsonl = read_file(fs::path(out) / "metrics.jsonl");
  CHECK(csv.starts_with(
      "step,task_loss,spatial_loss,total_loss,grad_norm,lr,tokens_per_second,val_task_loss,"));
  CHECK(std::count(csv.begin(), csv.end(), '\n') == 13);
  const json last = json::parse(jsonl.substr(jsonl.rfind("{")));
  CHECK(last.at("step") == 12);
  CHECK(last.at("val_task_loss").is_number());
  CHECK(last.contains("spatial_loss.h.1.mlp"));

  const Outcome text = run_program("infer", "'the cat' --tokens 20 --samples 2 --model " + out);
  CAPTURE(text.output);
  CHECK(text.status == 0);
  CHECK(contains(text.output, "the cat"));
  CHECK(contains(text.output, "----"));
  CHECK(contains(text.output, "tok/s"));
  // The same seed says the same; standard output carries the text alone.
  const std::string quiet = " --tokens 20 --seed 5 --model " + out + " 2>/dev/null";
  const Outcome first = run_program("infer", "'the cat'" + quiet);
  CHECK(first.output == run_program("infer", "'the cat'" + quiet).output);
  CHECK(first.output == run_program("infer", "-" + quiet, "printf 'the cat' | ").output);
  CHECK(first.output !=
        run_program("infer", "'the cat' --tokens 20 --seed 6 --model " + out + " 2>/dev/null").output);
  const std::string int8 = "'the cat' --weights int8" + quiet;
  CHECK(contains(run_program("infer", int8).output, "the cat"));
  CHECK(run_program("infer", int8).output == run_program("infer", int8).output);
  const Outcome lines =
      run_program("infer", "--interactive --tokens 3 --model " + out, "printf 'a dog\\nthe cat\\n' | ");
  CHECK(lines.status == 0);
  CHECK(contains(lines.output, "a dog"));
  CHECK(contains(lines.output, "the cat"));
}

TEST_CASE("programs: every training flag reaches the run") {
  const Workplace place;
  const std::string out = place.path("model");
  const Outcome trained = place.train(
      "--steps 3 --batch 2 --accumulate 2 --dtype bf16 --lr 0.002 --min-lr 0.0005 --warmup 1 --schedule "
      "linear "
      "--decay-steps 9 --beta1 0.8 --beta2 0.9 --eps 1e-7 --weight-decay 0.05 --clip 0.5 --seed 7 --n-layer "
      "1 "
      "--n-head 2 --n-embd 40 --sheet 5,8 --block-size 48 --vocab-size 512 --gelu tanh --alpha 1,0.5 "
      "--radius 2 "
      "--neighborhoods 4 --site post --distance linf --aggregation max --activation-decay 0.01 --positions "
      "identity "
      "--recompute --eval-every 2 --eval-batches 1 --save-every 1 --keep 2 --device cpu --out " +
      out);
  REQUIRE_MESSAGE(trained.status == 0, trained.output);
  CHECK(fs::exists(checkpoint(out, 2)));
  CHECK_FALSE(fs::exists(checkpoint(out, 1)));
  const json config = json::parse(read_file(checkpoint(out, 3) / "config.json"));
  CHECK(config == json::parse(R"({"model_type":"topolm","n_layer":1,"n_head":2,"n_embd":40,"block_size":48,
      "vocab_size":512,"gelu":"tanh","topography":{"sheet":[5,8],"alpha":[1.0,0.5],"radius":2,"neighborhoods":4,
      "site":"post","distance":"linf","aggregation":"max","activation_decay":0.01}})"));
  const json train = json::parse(read_file(checkpoint(out, 3) / "trainer.json")).at("train");
  CHECK(train ==
        json::parse(R"({"steps":3,"batch":2,"seq":32,"accumulate":2,"lr":0.002,"min_lr":0.0005,"warmup":1,
      "decay_steps":9,"schedule":"linear","beta1":0.8,"beta2":0.9,"eps":1e-7,"weight_decay":0.05,"clip":0.5,"seed":7,
      "dtype":"bf16","recompute":true})"));
  CHECK(contains(trained.output, "1 0.5"));

  // The configuration as a file, the positions from a checkpoint, a tokenizer and validation data from
  // elsewhere.
  const std::string again = place.path("again");
  const Outcome other =
      run_program("train_topolm", place.path("data/train.bin") + " --steps 1 --seq 16 --config " +
                                      (checkpoint(out, 3) / "config.json").string() + " --positions " +
                                      (checkpoint(out, 3) / "model.safetensors").string() + " --val " +
                                      place.path("data/val.bin") + " --tokenizer " +
                                      place.path("data/tokenizer.json") + " --out " + again);
  REQUIRE_MESSAGE(other.status == 0, other.output);
  CHECK(json::parse(read_file(checkpoint(again, 1) / "config.json")) == config);

  const std::string some = place.path("some");
  REQUIRE(place.train("--steps 5 --save-every 0 --save-at 1,4 --keep 0 --out " + some).status == 0);
  for (int step = 1; step <= 5; ++step) CHECK(fs::exists(checkpoint(some, step)) == (step == 1 || step >= 4));
}

TEST_CASE("programs: stopped and resumed runs are the same bytes") {
  const Workplace place;
  const std::string straight = place.path("straight"), parts = place.path("parts");
  REQUIRE(place.train("--steps 20 --out " + straight).status == 0);
  REQUIRE(place.train("--steps 7 --decay-steps 20 --out " + parts).status == 0);
  const Outcome resumed = place.train("--steps 20 --resume --out " + parts);
  REQUIRE_MESSAGE(resumed.status == 0, resumed.output);
  CHECK(contains(resumed.output, "checkpoint-000007"));
  for (const char* file : {"model.safetensors", "optimizer.safetensors"})
    CHECK(read_file(checkpoint(straight, 20) / file) == read_file(checkpoint(parts, 20) / file));
  // The metrics too, but for the speed.
  const auto losses = [](const std::string& out) {
    std::vector<json> rows;
    std::string text = read_file(fs::path(out) / "metrics.jsonl");
    for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
      json row = json::parse(text.substr(begin, end - begin));
      row.erase("tokens_per_second");
      row.erase("val_task_loss");  // the first part validated at its own end
      row.erase("val_spatial_loss");
      rows.push_back(row);
    }
    return rows;
  };
  CHECK(losses(straight) == losses(parts));
  CHECK(losses(parts).size() == 20);
}

TEST_CASE("programs: Ctrl-C saves and exits 130, kill -9 loses nothing that was saved") {
  const Workplace place;
  const auto start = [&](const std::string& out) {
    std::fflush(stdout);  // or the child would print our buffer once more
    const pid_t child = fork();
    if (child == 0) {
      const std::string bin = program("train_topolm"), data = place.path("data/train.bin");
      if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr)) _exit(1);
      execl(bin.c_str(), bin.c_str(), data.c_str(), "--preset", "nano", "--steps", "1000000", "--save-every",
            "5", "--keep", "0", "--out", out.c_str(), nullptr);  // what is waited for must not go again
      _exit(127);
    }
    for (int i = 0; i < 3000 && !fs::exists(checkpoint(out, 10));
         ++i)  // until two checkpoints have been made
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return child;
  };
  const auto finish = [](pid_t child, int signal) {
    kill(child, signal);
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  };
  for (const int signal : {SIGINT, SIGTERM, SIGKILL}) {
    CAPTURE(signal);
    const std::string out = place.path("out" + std::to_string(signal));
    CHECK(finish(start(out), signal) == (signal == SIGKILL ? 128 + SIGKILL : 130));
    int64_t newest = 0;
    for (const auto& entry : fs::directory_iterator(out))
      if (const std::string name = entry.path().filename();
          name.starts_with("checkpoint-") && !name.ends_with(".partial"))
        newest = std::max<int64_t>(newest, std::stoll(name.substr(11)));
    CHECK(newest >= 10);
    const Outcome resumed = run_program("train_topolm", place.path("data/train.bin") + " --resume --out " +
                                                            out + " --steps " + std::to_string(newest + 2));
    CHECK_MESSAGE(resumed.status == 0, resumed.output);
    CHECK(fs::exists(checkpoint(out, static_cast<int>(newest + 2))));
  }
}

TEST_CASE("programs: bad data files") {
  const Workplace place;
  const auto train = [&](const std::string& data, const std::string& flags = "") {
    return run_program("train_topolm",
                       data + " --preset nano --steps 1 --out " + place.path("x") + " " + flags);
  };
  const auto file = [&](const std::string& name, const std::string& bytes) {
    return place.directory.write(name, bytes).string();
  };
  const std::string tokens(4000, '\1');
  fs::create_directories(place.path("alone"));
  const auto alone = [&](const std::string& bytes) { return file("alone/data.bin", bytes); };

  check_refused(train(place.path("nowhere.bin")), 1, "nowhere.bin");
  check_refused(train(alone("")), 1, "empty");
  check_refused(train(alone(tokens + "x")), 1, "odd");
  check_refused(train(place.path("text.txt")), 1, "tokenize");
  check_refused(train(place.path("data/tokenizer.json")), 1, "tokenizer.json");
  std::string shard(1024, '\0');
  const int32_t header[3] = {20240520, 1, 1000};
  std::memcpy(shard.data(), header, sizeof header);
  check_refused(train(alone(shard + std::string(100, '\1'))), 1, "truncated");
  check_refused(train(alone(tokens), "--vocab-size 200"), 1, "token id 257");
  check_refused(train(alone(std::string(60, '\1')), "--vocab-size 512"), 1, "--seq");
  check_refused(train(place.path("data/train.bin"), "--val " + place.path("nowhere.bin")), 1, "nowhere.bin");
  check_refused(train(place.path("data/train.bin"), "--tokenizer " + place.path("text.txt")), 1, "text.txt");
  CHECK_FALSE(fs::exists(place.path("x")));  // nothing was begun
}

TEST_CASE("programs: bad configurations and flags") {
  const Workplace place;
  const std::string out = " --steps 1 --out " + place.path("x");
  check_refused(place.train("--n-head 5" + out), 1, "not divisible");
  check_refused(place.train("--sheet 5,7" + out), 1, "35 units");
  check_refused(place.train("--radius 9" + out), 1, "--radius 9");
  check_refused(place.train("--alpha -1" + out), 1, "--alpha");
  check_refused(run_program("train_topolm", place.path("data/train.bin") + " --preset nano --seq 65" + out),
                1, "--seq 65");
  check_refused(place.train("--distance l3" + out), 1, "'l3' is not one of: l2, l1, linf");
  check_refused(place.train("--device tpu" + out), 1, "tpu");
  check_refused(place.train("--positions " + place.path("text.txt") + out), 1, "text.txt");
  check_refused(place.train("--config " + place.path("text.txt") + out), 1, "text.txt");
  check_refused(place.train("--no-such-flag" + out), 2, "--no-such-flag");
  check_refused(place.train("--steps many"), 2, "many");
  check_refused(run_program("train_topolm", ""), 2, "DATA");
  check_refused(run_program("train_topolm", place.path("data/train.bin") + " --preset huge" + out), 1,
                "nano, tiny or base");
  check_refused(place.train("--resume" + out), 1, "no checkpoint");
  check_refused(place.train("--lr 1e30 --warmup 0 --clip 0 --steps 9 --out " + place.path("nan")), 1,
                "not finite");
  check_refused(place.train("--out /dev/null/model --steps 1"), 1, "/dev/null/model");
  check_refused(place.train("--out " + place.path("text.txt") + " --steps 1"), 1, "text.txt");
  check_refused(place.train("--batch 100000000" + out), 1, "not enough memory for the activations (hidden");
  check_refused(place.train("--batch 100000000" + out), 1, "use --recompute when training, --dtype bf16");
  const Outcome help = run_program("train_topolm", "--help");
  CHECK(help.status == 0);
  for (const char* flag :
       {"--val", "--preset", "--alpha", "--radius", "--neighborhoods", "--site", "--distance", "--positions",
        "--resume", "--eval-every", "--save-every", "--dtype", "--threads", "--recompute", "--memory"})
    CHECK_MESSAGE(contains(help.output, flag), flag);
}

TEST_CASE("programs: --memory prints what a step needs, without data if need be") {
  const Workplace place;
  const auto activations = [&](const std::string& flags) {
    const Outcome shown = run_program("train_topolm", "--memory --preset nano --batch 2 --seq 17 " + flags);
    CAPTURE(shown.output);
    CHECK(shown.status == 0);
    for (const char* row : {"\nweights", "\ngradients", "\nsecond moments", "\nactivations", "\n  hidden",
                            "\nworking memory of operations"})
      CHECK_MESSAGE(contains(shown.output, row), row);
    double share = 0;
    std::istringstream lines(shown.output);
    for (std::string line; std::getline(lines, line);)
      if (line.ends_with('%') && !line.starts_with(' ')) share += std::stod(line.substr(line.size() - 9));
    CHECK(share == doctest::Approx(200).epsilon(0.002));  // the rows and their sum
    // The sum is not the same each time: a thread's working memory grows with the tasks that it happens to
    // get.
    const size_t line = shown.output.find("\nactivations ");
    REQUIRE(line != std::string::npos);
    return shown.output.substr(line, shown.output.find('B', line) - line);
  };
  for (const std::string device : {"cpu", "simt"}) {
    CAPTURE(device);
    const std::string kept = activations("--device " + device);
    CHECK(kept == activations(place.path("data/train.bin") + " --vocab-size 512 --device " + device));
    CHECK(kept != activations("--recompute --device " + device));
  }
}

TEST_CASE("programs: they start without a GPU, a driver and CUDA's libraries, and say why it is the CPU") {
  const Workplace place;
  const std::string out = place.path("model"), hidden = "CUDA_VISIBLE_DEVICES= ";
  const Outcome trained = place.train("--steps 1 --out " + out, hidden);
  CAPTURE(trained.output);
  CHECK(trained.status == 0);
  CHECK(contains(trained.output, "device      cpu ("));
  const std::string infer = "hello --tokens 1 --model " + out + " --device ";
  CHECK(contains(run_program("infer", infer + "auto", hidden).output, "; cpu ("));
  CHECK(contains(run_program("infer", infer + "cpu", hidden).output, "; cpu: "));
  check_refused(place.train("--device cuda --steps 1 --overwrite --out " + out, hidden), 1,
                "--device cuda cannot be used: ");
  check_refused(run_program("infer", infer + "cuda", hidden), 1, "--device cuda cannot be used: ");
  const Outcome libraries = shell("ldd " + program("train_topolm") + " " + program("infer"));
  CHECK(contains(libraries.output, "libstdc++"));
  for (const char* name : {"libcu", "libnv"}) CHECK_FALSE(contains(libraries.output, name));
}

TEST_CASE("programs: a model is not overwritten by accident, and resume wants its own data") {
  const Workplace place;
  const std::string out = place.path("model");
  REQUIRE(place.train("--steps 2 --out " + out).status == 0);
  const std::string before = read_file(checkpoint(out, 2) / "model.safetensors");
  check_refused(place.train("--steps 2 --out " + out), 1, "--resume");
  CHECK(read_file(checkpoint(out, 2) / "model.safetensors") == before);
  check_refused(run_program("train_topolm", place.path("data/val.bin") + " --resume --steps 3 --out " + out),
                1, "same data");
  const Outcome replaced = place.train("--steps 1 --overwrite --out " + out);
  CHECK_MESSAGE(replaced.status == 0, replaced.output);
  CHECK(fs::exists(checkpoint(out, 1)));
  CHECK_FALSE(fs::exists(checkpoint(out, 2)));
}

TEST_CASE("programs: a disk that fills up leaves the last checkpoint whole") {
  const Workplace place;
  const std::string out = place.path("model");
  REQUIRE(place.train("--steps 2 --out " + out).status == 0);
  const std::string before = read_file(checkpoint(out, 2) / "model.safetensors");
  // A file-size limit stands in for the full disk: writing fails in the middle of model.safetensors.
  check_refused(place.train("--steps 4 --resume --out " + out, "ulimit -f 100; trap '' XFSZ; "), 1,
                "model.safetensors");
  CHECK(read_file(checkpoint(out, 2) / "model.safetensors") == before);
  CHECK_FALSE(fs::exists(checkpoint(out, 4)));
  CHECK_FALSE(fs::exists(checkpoint(out, 4).string() + ".partial"));
  const Outcome resumed = place.train("--steps 4 --resume --out " + out);
  CHECK_MESSAGE(resumed.status == 0, resumed.output);
}

TEST_CASE("programs: infer without a model, a tokenizer, or good flags says what to do") {
  const Workplace place;
  check_refused(run_program("infer", "hello --model " + place.path("nowhere")), 1, "train_topolm");
  const std::string out = place.path("model");
  REQUIRE(place.train("--steps 1 --out " + out).status == 0);
  check_refused(run_program("infer", "hello --temperature -1 --model " + out), 1, "--temperature");
  check_refused(run_program("infer", "hello --top-p 0 --model " + out), 1, "--top-p");
  check_refused(run_program("infer", "hello --tokens 0 --model " + out), 2, "--tokens");
  check_refused(run_program("infer", "hello --wrong --model " + out), 2, "--wrong");
  check_refused(run_program("infer", "hello --weights int4 --model " + out), 2, "--weights");
  check_refused(run_program("infer", "hello --weights int8 --device simt --model " + out), 1, "--device cpu");
  check_refused(run_program("infer", "hello --model " + out + " >/dev/full"), 1, "standard output");
  for (const char* flags :
       {"--temperature 0", "--top-k 5", "--top-p 0.9", "--min-p 0.1", "--dtype bf16", "--threads 1",
        "--weights int8", "--weights int8 --dtype bf16", "--weights dtype"})
    CHECK(run_program("infer", std::string("hello --tokens 5 ") + flags + " --model " + out).status == 0);
  fs::remove(checkpoint(out, 1) / "tokenizer.json");
  check_refused(run_program("infer", "hello --model " + out), 1, "tokenizer.json");
}
