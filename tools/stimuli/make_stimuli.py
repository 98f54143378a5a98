#!/usr/bin/env python3
"""make_stimuli.py NOVELS...: writes words.csv, pairs.csv and localizer.csv beside this file, from candidates.txt
and sentences.txt, and prints the tables that README.md shows. Same input, same files.

    sh tools/fetch_novels.sh demo/text && python3 tools/stimuli/make_stimuli.py demo/text/*.txt
"""

import collections
import functools
import itertools
import math
import pathlib
import random
import re
import statistics
import sys

HERE = pathlib.Path(__file__).parent
CELLS = ["concrete_noun", "concrete_verb", "abstract_noun", "abstract_verb"]
PER_CELL = 72
PAIRS = 72
RARE = 4  # a word that occurs less often is left out: a small model cannot know it
SEED = 1811  # when the first of the novels came out


class Corpus:
    """How often words occur, and in what company."""

    # A noun (or its adjective) follows these, the base form of a verb those; "to" has both after it.
    BEFORE_NOUNS = set("the a an my your his their our its no every each some any of in with for from by".split())
    MODALS = set("will would could can cannot should may might must shall".split())

    def __init__(self, paths):
        self.count, self.nominal, self.modal, self.infinitive = (collections.Counter() for _ in range(4))
        for path in paths:
            text = pathlib.Path(path).read_text(encoding="utf-8").lower().replace("_", "")
            words = re.findall(r"[a-z]+(?:'[a-z]+)?|[.,;:!?\"()-]", text)
            self.count.update(word for word in words if word[0].isalpha())
            for before, word in itertools.pairwise(words):
                self.nominal[word] += before in self.BEFORE_NOUNS
                self.modal[word] += before in self.MODALS
                self.infinitive[word] += before == "to"

    def log_frequency(self, word):
        return math.log10(self.count[word])

    @functools.cache
    def log_family(self, word):
        """Of all words that begin with it: what a byte-pair vocabulary sees, and shortens to fewer tokens."""
        return math.log10(sum(count for other, count in self.count.items() if other.startswith(word)))

    def class_share(self, word, noun):
        """Of the places that tell a word's class, the share that tells this one; 0 when none does."""
        if noun:  # "to town"
            right, wrong = self.nominal[word], self.modal[word]
        else:
            right, wrong = self.modal[word] + self.infinitive[word], self.nominal[word]
        return right / (right + wrong) if right else 0.0


def read_sections(path):
    """{section: lines of words}"""
    sections = collections.defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            name = line.strip("[]")
        elif line and not line.startswith("#"):
            sections[name].append(line.split())
    return sections


def write_csv(name, rows):
    with open(HERE / name, "w", encoding="utf-8", newline="\n") as file:
        file.write("stimulus,condition\n" + "".join(f"{text},{condition}\n" for text, condition in rows))


# --- Balance -----------------------------------------------------------------------------------------------

def t_test_p(a, b):
    """Two-sided p of Welch's t test, its tail integrated numerically (Simpson)."""
    va, vb = statistics.variance(a) / len(a), statistics.variance(b) / len(b)
    t = abs(statistics.mean(a) - statistics.mean(b)) / math.sqrt(va + vb)
    df = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
    steps = 2000
    density = [scale * (1 + (t * i / steps) ** 2 / df) ** (-(df + 1) / 2) for i in range(steps + 1)]
    area = t / steps / 3 * (density[0] + density[-1] + 4 * sum(density[1:-1:2]) + 2 * sum(density[2:-1:2]))
    return 1 - 2 * area


def select(pools, size, measures, rng):
    """`size` of each pool, so that the measures' means and standard deviations agree: simulated annealing that
    swaps a chosen item for another of its pool."""
    values = {item: [measure(item) for measure in measures] for pool in pools for item in pool}
    spread = [statistics.pstdev([v[m] for v in values.values()]) for m in range(len(measures))]
    chosen = [sorted(pool)[:] for pool in pools]
    for items in chosen:
        rng.shuffle(items)  # the first `size` are chosen

    def moments(items):
        out = []
        for m in range(len(measures)):
            column = [values[item][m] / spread[m] for item in items[:size]]
            mean = sum(column) / size
            out += [4 * mean, math.sqrt(sum((x - mean) ** 2 for x in column) / size)]  # means matter more
        return out

    def cost(all_moments):
        return sum(max(column) - min(column) for column in zip(*all_moments))

    now = [moments(items) for items in chosen]
    best, steps = cost(now), 20000
    for step in range(steps):
        k = rng.randrange(len(chosen))
        items = chosen[k]
        if len(items) == size:
            continue
        i, j = rng.randrange(size), rng.randrange(size, len(items))
        items[i], items[j] = items[j], items[i]
        old, now[k] = now[k], moments(items)
        new = cost(now)
        if new <= best or rng.random() < math.exp((best - new) / (0.05 * (1 - step / steps))):
            best = new
        else:
            items[i], items[j] = items[j], items[i]
            now[k] = old
    return [sorted(items[:size]) for items in chosen]


def balance_table(cells, measures, others):
    """Markdown: means (standard deviations), and the smallest p of any two cells; `others` were not balanced."""
    shown = {**measures, **others}
    print("| | items | " + " | ".join(shown) + " |\n" + "|---" * (len(shown) + 2) + "|")
    columns = {cell: {name: [measure(item) for item in items] for name, measure in shown.items()}
               for cell, items in cells.items()}
    for cell, items in cells.items():
        moments = [f"{statistics.mean(c):.2f} ({statistics.stdev(c):.2f})" for c in columns[cell].values()]
        print(f"| {cell} | {len(items)} | " + " | ".join(moments) + " |")
    smallest = {name: min(t_test_p(columns[a][name], columns[b][name]) for a, b in itertools.combinations(cells, 2))
                for name in shown}
    print("| smallest p of two | | " + " | ".join(f"{p:.2f}" for p in smallest.values()) + " |\n")
    if min(smallest[name] for name in measures) < 0.2:
        sys.exit("error: the cells are not balanced; add candidates")


# --- The three sets ----------------------------------------------------------------------------------------

def make_words(corpus, sections, rng):
    def usable(word, noun):
        return corpus.count[word] >= RARE and corpus.class_share(word, noun) >= 0.9

    pools = []
    for cell in CELLS:
        words = sorted(set(itertools.chain.from_iterable(sections[cell])))
        pools.append([word for word in words if usable(word, "noun" in cell)])
        dropped = [f"{w} ({corpus.count[w]}, {corpus.class_share(w, 'noun' in cell):.2f})" for w in words
                   if w not in pools[-1]]
        print(f"{cell}: {len(pools[-1])} candidates; not shown by the corpus: {', '.join(dropped)}",
              file=sys.stderr)
    measures = {"letters": len, "log10 frequency": corpus.log_frequency}
    cells = dict(zip(CELLS, select(pools, PER_CELL, list(measures.values()), rng)))
    write_csv("words.csv", [(word, cell) for cell in CELLS for word in cells[cell]])
    print("words.csv\n")
    balance_table(cells, measures, {"inflections too": corpus.log_family})


def make_pairs(corpus, sections, rng):
    pools, articles = [], {"noun": "the", "verb": "to"}
    for name in articles:
        pairs = []
        for line in sections[name]:
            words = [word for word in line if corpus.count[word] >= RARE]
            rng.shuffle(words)
            pairs += zip(words[::2], words[1::2])
        flat = list(itertools.chain.from_iterable(pairs))
        assert len(set(flat)) == len(flat), [w for w, n in collections.Counter(flat).items() if n > 1]
        print(f"{name}: {len(pairs)} pairs", file=sys.stderr)
        pools.append(pairs)

    measures = {"letters a word": lambda pair: sum(map(len, pair)) / 2,
                "log10 frequency": lambda pair: sum(map(corpus.log_frequency, pair)) / 2}
    cells = dict(zip(articles, select(pools, PAIRS, list(measures.values()), rng)))
    write_csv("pairs.csv", [(f"{articles[name]} {a} {articles[name]} {b}", name) for name in articles
                            for a, b in cells[name]])
    print("pairs.csv\n")
    balance_table(cells, measures, {"inflections too": lambda pair: sum(map(corpus.log_family, pair)) / 2})


ONSETS = "b c d f g h j k l m n p r s t v w bl br cl cr dr fl fr gl gr pl pr sl sn sp st sw tr tw th sh ch".split()
NUCLEI = "a e i o u ai ea ee oa oo ou".split()
CODAS = ["", "", "", *"b d g k l m n p r s t ck lf lk lp lt mp nd nk nt rb rd rk rm rn rp rt sk sp st th sh".split()]
# English words that the novels happen not to have, met in reading the output.
ENGLISH = set("""
ab ai airt alp amp ant arb bal beaks bis blond bream carp cent cheep chou cock colt crees croon croup din dit
dup eek el elf es fam fleam flor forb fort gee geek gib glam goat grig grunt gunk hump ib keel kob lo loos mam
musk nard neb neg ob od op oud pig pod punk reest rib rit seer shool shoos shout shwas si slag snook snout sop
stoa stool ta teem tees um vo wee woo
""".split())


def non_word(length, words, rng):
    """Pronounceable, of so many letters, neither a word nor one with a word of four letters in it."""
    while True:
        made = ""
        while len(made) < length:
            made += rng.choice(ONSETS if made or rng.random() < 0.85 else [""])
            made += rng.choice(NUCLEI) + rng.choice(CODAS)
        hard = re.search(r"^[aeiou]+$|(.)\1\1|[aeiou]{3}|[^aeiou]{4}", made)
        parts = {made[i:j] for i, j in itertools.combinations(range(length + 1), 2) if j - i >= 4}
        if len(made) == length and not hard and not words & ({made} | parts):
            return made


def scramble(words, rng):
    """Another order, in which no two words follow each other as they did."""
    pairs = set(itertools.pairwise(words))
    while True:
        mixed = rng.sample(words, len(words))
        if not pairs & set(itertools.pairwise(mixed)):
            return mixed


def make_localizer(corpus, rng):
    sentences = [line.split() for line in (HERE / "sentences.txt").read_text(encoding="utf-8").splitlines()
                 if line and not line.startswith("#")]
    for sentence in sentences:
        if len(sentence) != 12:
            sys.exit(f"error: {len(sentence)} words: {' '.join(sentence)}")
    types = sorted(set(itertools.chain.from_iterable(sentences)))
    # Each word has a non-word of its length that takes its place everywhere: non-words recur as words do. Each is
    # drawn by itself, so that where one is refused the others stay.
    stand_in = {}
    for word in types:
        words = {*corpus.count, *types, *stand_in.values(), *ENGLISH}
        stand_in[word] = non_word(len(word), words, random.Random(f"for {word} {SEED}"))
    scrambled = [scramble(sentence, rng) for sentence in sentences]
    non_words = [[stand_in[word] for word in scramble(sentence, rng)] for sentence in sentences]
    sets = {"sentence": sentences, "scrambled": scrambled, "nonword": non_words}
    write_csv("localizer.csv", [(" ".join(words), name) for name in sets for words in sets[name]])
    tokens = list(itertools.chain.from_iterable(sentences))
    known = sum(corpus.count[word] > 0 for word in tokens)
    print(f"localizer.csv\n\n{len(sentences)} sentences of 12 words, {len(types)} different; {known} of "
          f"{len(tokens)} words occur in the corpus")
    print("not in the corpus:", *[word for word in types if not corpus.count[word]], file=sys.stderr)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    corpus = Corpus(sys.argv[1:])
    sections = read_sections(HERE / "candidates.txt")
    make_words(corpus, sections, random.Random(f"words {SEED}"))
    make_pairs(corpus, sections, random.Random(f"pairs {SEED}"))
    make_localizer(corpus, random.Random(f"localizer {SEED}"))


if __name__ == "__main__":
    main()
