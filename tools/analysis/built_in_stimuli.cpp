// Our stimuli are part of every program that measures, so that it runs from anywhere. The assembler reads
// them: C++20 has no #embed.
#include "engine/error.h"
#include "tools/analysis/stimuli.h"

// Paths are relative to where the compiler runs: the top of the project.
#define TOPOLM_EMBED(name)                                                                           \
  asm(".pushsection .rodata\n"                                                                       \
      "topolm_stimuli_" #name ":\n.incbin \"tools/stimuli/" #name ".csv\"\n.byte 0\n.popsection\n"); \
  extern "C" const char topolm_stimuli_##name[] __attribute__((visibility("hidden")))

TOPOLM_EMBED(localizer);
TOPOLM_EMBED(words);
TOPOLM_EMBED(pairs);

namespace topolm {

StimulusSet built_in_stimuli(const std::string& name) {
  for (const auto& [known, csv] : {std::pair{"localizer", topolm_stimuli_localizer},
                                   {"words", topolm_stimuli_words},
                                   {"pairs", topolm_stimuli_pairs}})
    if (name == known) return parse_stimuli(name, csv);
  fail("there are no stimuli '{}' here; those built in are localizer, words and pairs", name);
}

}  // namespace topolm
