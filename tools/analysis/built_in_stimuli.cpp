// Our stimuli are part of every program that measures, so that it runs from anywhere.
#include "engine/error.h"
#include "tools/analysis/stimuli.h"
#include "tools/embed.h"

TOPOLM_EMBED(topolm_stimuli_localizer, "tools/stimuli/localizer.csv");
TOPOLM_EMBED(topolm_stimuli_words, "tools/stimuli/words.csv");
TOPOLM_EMBED(topolm_stimuli_pairs, "tools/stimuli/pairs.csv");

namespace topolm {

StimulusSet built_in_stimuli(const std::string& name) {
  for (const auto& [known, csv] : {std::pair{"localizer", topolm_stimuli_localizer},
                                   {"words", topolm_stimuli_words},
                                   {"pairs", topolm_stimuli_pairs}})
    if (name == known) return parse_stimuli(name, csv);
  fail("there are no stimuli '{}' here; those built in are localizer, words and pairs", name);
}

}  // namespace topolm
