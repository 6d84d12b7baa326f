"""Words of scripts that are written without blanks.

Chinese and Japanese titles come out of the plain rule as one long token. They are cut where the script changes; a run
of Han characters becomes its overlapping pairs, which is what search engines index where they have no dictionary
(Lucene's CJKAnalyzer) and what keeps every two-character word, most of the language, intact. Katakana runs are mostly
one loan word (a product, a brand) and stay whole. Hiragana, mostly grammar, is cut off and dropped when it is a
particle. Korean is written with blanks, so its words stay as they are; so do Latin, Cyrillic, Arabic and the rest.
Thai, Lao, Khmer and Burmese have no blanks either, but pairs of their letters are no words: their runs are left whole,
which makes one rare attribute of a phrase and usually none.
A dictionary would do better, but no library for it is both light and kept: jieba's last release is of 2020 and brings a
19 MB word list, and MeCab needs 50 MB and more.
"""

import functools
import re

# Travels into the vocabulary's hash where segmenting is on.
RULE = "segmented-1"

_HAN = "\u2e80-\u2fdf\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_HIRAGANA = "\u3041-\u309f"
_KATAKANA = "\u30a0-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # with the long-vowel mark
_RUNS = re.compile(f"[{_HAN}]+|[{_HIRAGANA}]+|[{_KATAKANA}]+|[^{_HAN}{_HIRAGANA}{_KATAKANA}]+")
_CJK = re.compile(f"[{_HAN}{_HIRAGANA}{_KATAKANA}]")
_IS_HAN = re.compile(f"[{_HAN}]")

# Particles and endings that hang between words.
PARTICLES = frozenset(
    "の と が は を に で も や へ から まで より など な だ です ます する した して いる ある った".split()
)

# Function words of languages whose titles are mixed with English ones, less those that are also English words or name
# a thing: "die", "man", "son", "sur", "pour", "come", "hat", "war" stay. The plain rule's list is English.
STOP_WORDS = frozenset(
    """
    und der das den dem des ein eine einen einem einer mit für fuer von vom zum zur auf aus bei oder nicht auch
    le les du une et avec sans dans est aux ou
    el los las del una y con sin para por
    il lo gli della delle dei di e per
    het een van voor en met
    """.split()
)


LEFT_OUT = STOP_WORDS | PARTICLES


@functools.lru_cache(maxsize=2**20)
def segment(token: str) -> tuple[str, ...]:
    """Cuts one token into the words of its scripts.

    Args:
      token: without blanks.

    Returns:
      The words in order; the token itself where it has no Chinese or Japanese character.
    """
    if token.isascii() or not _CJK.search(token):
        return (token,)
    words = []
    for run in _RUNS.findall(token):
        if _IS_HAN.match(run) and len(run) > 1:
            words += [run[place : place + 2] for place in range(len(run) - 1)]
        elif run not in PARTICLES and run.strip("|.-/'"):
            words.append(run.strip("|.-/'"))
    return tuple(words)
