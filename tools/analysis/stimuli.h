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

/// Reads stimuli. The header of a CSV says which format it is:
///   stim1..stim14          language localizer: 12 words, lower-cased, and S or N (several such files in a
///   directory are one set) sentence, condition    S, W, J, N word, category, class  condition
///   category_class: "concrete_noun" class, category, pair  condition class: noun, verb stimulus, condition
///   ours
/// Any other file whose name ends in .txt is text: a stimulus a line, all of condition "text". Throws Error
/// with one sentence naming file and line: missing columns, an empty text or condition, text that is not
/// UTF-8, no items.
StimulusSet load_stimuli(const fs::path& path);
StimulusSet parse_stimuli(const std::string& name, const std::string& csv);

/// The contrasts that the paper makes of a set with these conditions (reference E2, E3): "S-N", "verb-noun",
/// "concrete_noun-concrete_verb", ... Empty when there are none it knows.
std::vector<Contrast> default_contrasts(const StimulusSet& set);
/// "verb-noun", "concrete_noun+abstract_noun-concrete_verb+abstract_verb", with "NAME=" before it or not.
/// Throws Error when a condition is not in `set`, or a side has fewer than two items.
Contrast parse_contrast(const std::string& text, const StimulusSet& set);

/// Ours, compiled in: "localizer" (sentence, scrambled, nonword), "words" (concrete_noun, concrete_verb,
/// abstract_noun, abstract_verb). Throws Error for another name.
StimulusSet built_in_stimuli(const std::string& name);

}  // namespace topolm
