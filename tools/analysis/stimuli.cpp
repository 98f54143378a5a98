#include "tools/analysis/stimuli.h"

#include <csv.h>
#include <utf8proc.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "engine/error.h"

namespace topolm {

namespace {

/// Calls f(codepoint) for each; false where the text is not UTF-8.
template <class F>
bool for_each_codepoint(std::string_view text, F&& f) {
  while (!text.empty()) {
    utf8proc_int32_t codepoint = 0;
    const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                         static_cast<utf8proc_ssize_t>(text.size()), &codepoint);
    if (length <= 0) return false;
    f(codepoint);
    text.remove_prefix(static_cast<size_t>(length));
  }
  return true;
}

std::string lower_case(std::string_view text) {
  std::string lower;
  for_each_codepoint(text, [&](utf8proc_int32_t codepoint) {
    utf8proc_uint8_t bytes[4];
    const auto length = utf8proc_encode_char(utf8proc_tolower(codepoint), bytes);
    lower.append(bytes, bytes + length);
  });
  return lower;
}

std::string_view trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  return begin == text.npos ? "" : text.substr(begin, text.find_last_not_of(" \t\r\n") + 1 - begin);
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (size_t end; (end = text.find(separator)) != text.npos; text.remove_prefix(end + 1))
    parts.emplace_back(text.substr(0, end));
  parts.emplace_back(text);
  return parts;
}

/// Calls f(number, line with its newline) for each line, from 1. Throws Error where one is not UTF-8.
template <class F>
void for_each_line(const std::string& file, std::string_view text, F&& f) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // the byte order mark that Excel writes
  for (int64_t number = 1; !text.empty(); ++number) {
    const std::string_view line = text.substr(0, std::min(text.find('\n'), text.size() - 1) + 1);
    require(for_each_codepoint(line, [](utf8proc_int32_t) {}),
            "'{}', line {}: this is not UTF-8; save the file in that encoding", file, number);
    f(number, line);
    text.remove_prefix(line.size());
  }
}

struct Row {
  int64_t line = 1;  // where it begins: quotation marks may hold newlines
  std::vector<std::string> fields;
};

/// What libcsv calls back.
struct RowReader {
  int64_t line = 1;
  Row row;
  std::vector<Row> rows;

  static void field(void* text, size_t size, void* self) {
    static_cast<RowReader*>(self)->row.fields.emplace_back(static_cast<const char*>(text), size);
  }
  static void end_of_row(int, void* self) {
    auto& reader = *static_cast<RowReader*>(self);
    if (!reader.row.fields.empty()) reader.rows.push_back(std::move(reader.row));
    reader.row = {reader.line + 1, {}};
  }
};

/// All rows but blank lines.
std::vector<Row> read_rows(const std::string& file, std::string_view csv) {
  // Strict: without, one stray quotation mark swallows the rest of the file. And newlines are all reported,
  // or blank lines would not be counted.
  csv_parser parser;
  require(csv_init(&parser, CSV_STRICT | CSV_STRICT_FINI | CSV_REPALL_NL) == 0, "libcsv does not start");
  const std::unique_ptr<csv_parser, decltype(&csv_free)> guard(&parser, csv_free);
  RowReader reader;
  const auto unmatched = [&](int64_t line) {
    fail(
        "'{}', line {}: quotation marks do not match; a field that holds them is written \"like "
        "\"\"this\"\"\"",
        file, line);
  };
  for_each_line(file, csv, [&](int64_t number, std::string_view line) {
    reader.line = number;
    if (csv_parse(&parser, line.data(), line.size(), RowReader::field, RowReader::end_of_row, &reader) !=
        line.size())
      unmatched(number);
  });
  if (csv_fini(&parser, RowReader::field, RowReader::end_of_row, &reader) != 0) unmatched(reader.row.line);
  return std::move(reader.rows);
}

/// A text is the words of some columns, joined by spaces; a condition those of others, joined by "_".
struct Format {
  std::string columns;  // as one would say it
  std::vector<std::string> text, condition;
  bool upper_case = false;
};

const std::vector<Format>& formats() {
  static const auto known = [] {
    Format localizer{"stim1,...,stim14", {}, {"stim14"}, true};
    for (int i = 2; i <= 13; ++i) localizer.text.push_back(fmt::format("stim{}", i));
    return std::vector<Format>{{"stimulus,condition", {"stimulus"}, {"condition"}},
                               {"sentence,condition", {"sentence"}, {"condition"}},
                               {"word,category,class", {"word"}, {"category", "class"}},
                               {"class,category,pair", {"pair"}, {"class"}},
                               std::move(localizer)};
  }();
  return known;
}

const Format& format_of(const std::string& file, const Row& header) {
  const auto has = [&](const std::string& column) {
    return std::find(header.fields.begin(), header.fields.end(), column) != header.fields.end();
  };
  std::string known;
  for (const Format& format : formats()) {
    if (std::all_of(format.text.begin(), format.text.end(), has) &&
        std::all_of(format.condition.begin(), format.condition.end(), has))
      return format;
    known += (known.empty() ? "" : " or ") + format.columns;
  }
  fail("'{}', line {}: columns are missing; stimuli have {} (plain text, a stimulus a line, is a file .txt)",
       file, header.line, known);
}

/// The words of some columns of a row, none of which may be empty.
std::string join(const std::string& file, const Row& header, const Row& row,
                 const std::vector<std::string>& columns, char separator) {
  std::string joined;
  for (const std::string& column : columns) {
    const auto place = std::find(header.fields.begin(), header.fields.end(), column) - header.fields.begin();
    const std::string_view word = trim(row.fields[static_cast<size_t>(place)]);
    require(!word.empty(), "'{}', line {}: the {} is empty", file, row.line, column);
    if (!joined.empty()) joined += separator;
    joined += word;
  }
  return joined;
}

/// Appends the stimuli of a CSV and returns its format.
const Format& read_csv(const std::string& file, std::string_view csv, std::vector<Stimulus>& items) {
  const std::vector<Row> rows = read_rows(file, csv);
  require(!rows.empty(), "'{}' is empty: it has no stimuli", file);
  const Row& header = rows[0];
  const Format& format = format_of(file, header);
  require(rows.size() > 1, "'{}' has no stimuli, only a header", file);
  for (const Row& row : std::span(rows).subspan(1)) {
    require(
        row.fields.size() == header.fields.size(),
        "'{}', line {}: the header has {} fields, this line {}; a field with commas needs quotation marks",
        file, row.line, header.fields.size(), row.fields.size());
    std::string text = join(file, header, row, format.text, ' ');
    items.push_back({format.upper_case ? lower_case(text) : std::move(text),
                     join(file, header, row, format.condition, '_')});
  }
  return format;
}

void read_text(const std::string& file, std::string_view text, std::vector<Stimulus>& items) {
  for_each_line(file, text, [&](int64_t number, std::string_view line) {
    line = trim(line);
    require(!line.empty(), "'{}', line {}: the text is empty; each line is a stimulus", file, number);
    items.push_back({std::string(line), "text"});
  });
  require(!items.empty(), "'{}' is empty: it has no stimuli", file);
}

std::vector<Stimulus> read_directory(const fs::path& directory) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error))
    if (entry.path().extension() == ".csv") files.push_back(entry.path());
  require(!error, "cannot read the directory '{}': {}", directory.string(), error.message());
  require(!files.empty(), "there is no .csv file in '{}'", directory.string());
  std::sort(files.begin(), files.end());
  std::vector<Stimulus> items;
  const Format* format = nullptr;
  for (const fs::path& file : files) {
    const Format* const its = &read_csv(file.string(), read_file(file), items);
    if (format && format != its)
      fail("'{}' has {}, but '{}' has {}; a directory is one set, of one format: name a file instead",
           files[0].string(), format->columns, file.string(), its->columns);
    format = its;
  }
  return items;
}

std::string names(const std::map<std::string, int64_t>& conditions) {
  std::string list;
  for (const auto& [name, count] : conditions) list += (list.empty() ? "" : ", ") + name;
  return list;
}

/// The contrast; or, where it names a condition that is not there, the first such.
std::pair<Contrast, std::optional<std::string>> read_contrast(const std::string& text,
                                                              const StimulusSet& set) {
  const auto conditions = set.conditions();
  const size_t equals = text.find('=');
  const std::string_view sides = std::string_view(text).substr(equals == text.npos ? 0 : equals + 1);
  std::optional<std::string> unknown;
  // The name of a condition may have a hyphen ("non-word"): the one meant stands between conditions.
  for (size_t hyphen = 0; (hyphen = sides.find('-', hyphen)) != sides.npos; ++hyphen) {
    Contrast contrast{text.substr(0, equals), split(sides.substr(0, hyphen), '+'),
                      split(sides.substr(hyphen + 1), '+')};
    bool known = true;
    for (const auto* side : {&contrast.positive, &contrast.negative})
      for (const std::string& condition : *side)
        if (!conditions.count(condition)) {
          known = false;
          if (!unknown) unknown = condition;
        }
    if (known) return {std::move(contrast), std::nullopt};
  }
  require(unknown.has_value(),
          "'{}' is not a contrast; write two conditions or sums of them, such as verb-noun or a+b-c+d", text);
  return {{}, unknown};
}

Contrast checked(Contrast contrast, const StimulusSet& set) {
  // It becomes part of the names of files.
  require(!contrast.name.empty() && contrast.name.size() <= 80 && contrast.name[0] != '.' &&
              contrast.name.find('/') == std::string::npos,
          "'{}' is no name for a contrast, as it goes into names of files; put another before it: NAME=...",
          contrast.name);
  const auto conditions = set.conditions();
  std::vector<std::string> all;
  for (const auto* side : {&contrast.positive, &contrast.negative}) {
    int64_t items = 0;
    for (const std::string& condition : *side) items += conditions.at(condition);
    require(items >= 2, "the contrast '{}' has one item of '{}'; a test needs at least two on each side",
            contrast.name, side->front());
    all.insert(all.end(), side->begin(), side->end());
  }
  std::sort(all.begin(), all.end());
  const auto twice = std::adjacent_find(all.begin(), all.end());
  if (twice != all.end()) fail("the contrast '{}' names '{}' twice", contrast.name, *twice);
  return contrast;
}

}  // namespace

std::map<std::string, int64_t> StimulusSet::conditions() const {
  std::map<std::string, int64_t> counts;
  for (const Stimulus& item : items) ++counts[item.condition];
  return counts;
}

StimulusSet load_stimuli(const fs::path& path) {
  std::error_code ignored;  // what cannot be read says so below
  if (fs::is_directory(path, ignored)) {
    const fs::path whole = fs::absolute(path / "").lexically_normal();  // so that "." has a name, too
    return {whole.parent_path().filename().string(), read_directory(path)};
  }
  const std::string file = path.string(), contents = read_file(path);
  StimulusSet set{path.stem().string(), {}};
  if (path.extension() == ".txt")
    read_text(file, contents, set.items);
  else
    read_csv(file, contents, set.items);
  return set;
}

StimulusSet parse_stimuli(const std::string& name, const std::string& csv) {
  StimulusSet set{name, {}};
  read_csv(name, csv, set.items);
  return set;
}

std::vector<Contrast> default_contrasts(const StimulusSet& set) {
  std::vector<Contrast> contrasts;
  for (const char* const text :
       {"S-N", "S-W", "S-J", "W-N", "J-W", "J-N", "sentence-nonword", "sentence-scrambled", "verb-noun",
        "noun-verb=concrete_noun+abstract_noun-concrete_verb+abstract_verb", "concrete_noun-concrete_verb",
        "abstract_noun-abstract_verb",
        "abstract-concrete=abstract_noun+abstract_verb-concrete_noun+concrete_verb"})
    if (auto [contrast, unknown] = read_contrast(text, set); !unknown)
      contrasts.push_back(checked(std::move(contrast), set));
  return contrasts;
}

Contrast parse_contrast(const std::string& text, const StimulusSet& set) {
  auto [contrast, unknown] = read_contrast(text, set);
  require(!unknown, "'{}': the stimuli '{}' have no condition '{}'; they have {}", text, set.name,
          unknown.value_or(""), names(set.conditions()));
  return checked(std::move(contrast), set);
}

}  // namespace topolm
