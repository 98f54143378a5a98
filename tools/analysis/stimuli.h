// Stimuli: texts with a condition each, from the published files' formats, ours, or plain text.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/file.h"

namespace topolm {

struct Stimulus {
  std::string text, condition;
};

struct StimulusSet {
  std::string name;  // the file's name without its extension
  std::vector<Stimulus> items;

  /// Items a condition, in order of the conditions' names.
  std::map<std::string, int64_t> conditions() const;
};

/// Two groups of conditions of one set: responses to `positive` minus responses to `negative`.
struct Contrast {
  std::string name;
  std::vector<std::string> positive, negative;
};

/// Reads stimuli, in the file's order. The header of a CSV says which format it is:
///
///   stim1 ... stim14         the language localizer: 12 words, made lower case; condition S or N
///   word, category, class    condition category_class: concrete_noun, abstract_verb, ...
///   class, category, pair    condition class: noun, verb
///   sentence, condition      S, W, J, N
///   stimulus, condition      ours
///
/// A directory of CSV files of one format is one set, in order of their names. A file whose name ends in .txt
/// is text: a stimulus a line, all of condition "text". Throws Error with one sentence naming file and line:
/// missing columns, an empty text or condition, text that is not UTF-8, no stimuli.
StimulusSet load_stimuli(const fs::path& path);
StimulusSet parse_stimuli(const std::string& name, const std::string& csv);

/// The contrasts that the paper makes of a set with these conditions (reference E2, E3): "S-N", "verb-noun",
/// "concrete_noun-concrete_verb", ... Empty when there are none it knows. Throws Error for a side of one
/// item.
std::vector<Contrast> default_contrasts(const StimulusSet& set);
/// "verb-noun", "concrete_noun+abstract_noun-concrete_verb+abstract_verb", with "NAME=" before it or not.
/// Throws Error when a condition is not in `set`, or a side has fewer than two items.
Contrast parse_contrast(const std::string& text, const StimulusSet& set);

/// Ours, compiled in (tools/stimuli): "localizer" (sentence, scrambled, nonword), "words" (concrete_noun,
/// concrete_verb, abstract_noun, abstract_verb), "pairs" (noun, verb). Throws Error for another name.
StimulusSet built_in_stimuli(const std::string& name);

}  // namespace topolm
