"""Segments scripts that are written without spaces.

Chinese and Japanese titles come out of the title rule as one long token. They are cut where the script changes. A run
of Han characters becomes its overlapping bigrams, which is what search engines index without a dictionary (Lucene's
CJKAnalyzer) and what keeps two-character words, most of the language, intact. Katakana runs are mostly one loan word (a
product, a brand) and stay whole. Hiragana, mostly grammar, is cut off and dropped if it is a particle. Korean is
written with spaces, so its words stay as they are; so do Latin, Cyrillic, Arabic and the rest. Thai, Lao, Khmer and
Burmese have no spaces either, but bigrams of their letters are not words: their runs stay whole, so a phrase becomes
one rare token that usually falls below the threshold. (Title rule 1 cuts them at every vowel sign before.)
A dictionary would do better, but no library is both light and maintained: jieba's last release is from 2020 and ships a
19 MB word list, and MeCab needs 50 MB and more.
"""

import functools
import re

# Part of the vocabulary's hash when segmenting is on; raise it whenever a title could get different words.
RULE = "segmented-1"

_HAN = "\u2e80-\u2fdf\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_HIRAGANA = "\u3041-\u309f"
_KATAKANA = "\u30a0-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # with the long-vowel mark
_RUNS = re.compile(f"[{_HAN}]+|[{_HIRAGANA}]+|[{_KATAKANA}]+|[^{_HAN}{_HIRAGANA}{_KATAKANA}]+")
_CJK = re.compile(f"[{_HAN}{_HIRAGANA}{_KATAKANA}]")
_IS_HAN = re.compile(f"[{_HAN}]")

# Particles and verb endings between words.
PARTICLES = frozenset(
    "の と が は を に で も や へ から まで より など な だ です ます する した して いる ある った".split()
)

# Function words of languages that appear beside English, except those that are also English words or name a thing:
# "die", "man", "son", "sur", "pour", "come", "hat", "war" stay. The title rule covers English.
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
      token: text without spaces.

    Returns:
      The words in order; the token itself if it has no Chinese or Japanese character.
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
