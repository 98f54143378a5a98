// Times training steps of llm.c's CPU reference: its train_gpt2.c is included as its own test_gpt2.c does, so
// what runs is its code. tools/peer/llmc.sh builds this against a checkout; a model of random weights is
// written in its format first.
#define TESTING
#include "train_gpt2.c"

#include <sys/resource.h>

// Uniform with the deviation 0.02: what the numbers are does not change a step's time, but that they are
// finite does.
static float random_weight(unsigned* state) {
  *state = *state * 1664525u + 1013904223u;
  return ((float)(*state >> 8) / 16777216.0f - 0.5f) * 0.0693f;
}

// The checkpoint that gpt2_build_from_checkpoint reads: 256 ints, then its sixteen tensors in fp32, one after
// the other.
static void write_checkpoint(const char* path, GPT2Config c) {
  int header[256] = {20240326,     3,           c.max_seq_len, c.vocab_size,
                     c.num_layers, c.num_heads, c.channels,    c.padded_vocab_size};
  size_t sizes[NUM_PARAMETER_TENSORS];
  fill_in_parameter_sizes(sizes, c);
  FILE* file = fopenCheck(path, "wb");
  fwrite(header, sizeof(int), 256, file);
  unsigned state = 1337;
  for (int i = 0; i < NUM_PARAMETER_TENSORS; i++) {
    // Of 2, 8 and 14, the weights of LayerNorm, each is 1.
    const int ones = i == 2 || i == 8 || i == 14;
    for (size_t k = 0; k < sizes[i]; k++) {
      const float w = ones ? 1.0f : random_weight(&state);
      fwrite(&w, sizeof w, 1, file);
    }
  }
  fcloseCheck(file);
}

static double milliseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

int main(int argc, char** argv) {
  if (argc != 10) {
    fprintf(stderr, "usage: %s CHECKPOINT LAYERS HEADS CHANNELS VOCABULARY CONTEXT BATCH SEQ STEPS\n",
            argv[0]);
    return 2;
  }
  int n[10] = {0};
  for (int i = 2; i < 10; i++) n[i] = atoi(argv[i]);
  const GPT2Config config = {n[6], n[5], n[5], n[2], n[3], n[4]};
  const int batch = n[7], seq = n[8], steps = n[9];
  write_checkpoint(argv[1], config);
  GPT2 model;
  gpt2_build_from_checkpoint(&model, argv[1]);

  const int count = batch * seq;
  int* tokens = (int*)mallocCheck((size_t)(count + 1) * sizeof(int));
  unsigned state = 1;
  for (int i = 0; i <= count; i++) {
    random_weight(&state);
    tokens[i] = (int)((state >> 8) % (unsigned)config.vocab_size);
  }
  double* times = (double*)mallocCheck((size_t)(steps + 1) * sizeof(double));
  for (int step = 0; step <= steps; step++) {  // the first one allocates, and is not reported
    const double start = milliseconds();
    gpt2_forward(&model, tokens, tokens + 1, (size_t)batch, (size_t)seq);
    gpt2_zero_grad(&model);
    gpt2_backward(&model);
    gpt2_update(&model, 1e-4f, 0.9f, 0.999f, 1e-8f, 0.0f, step + 1);
    times[step] = milliseconds() - start;
  }
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  printf("{\"framework\": \"llm.c\", \"ms\": [");
  for (int step = 1; step <= steps; step++) printf("%s%.2f", step > 1 ? ", " : "", times[step]);
  printf("], \"task_loss\": %.4f, \"peak_rss_bytes\": %ld}\n", model.mean_loss, 1024L * usage.ru_maxrss);
  return 0;
}
