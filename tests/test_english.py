"""The English of the repository: phrases that no native speaker writes, and what to write instead.

A pattern is added when a phrase has slipped in that a reader stumbled over. Each comes with a sentence that it catches
and one that it lets through, so that a rule that is too broad fails here and not in somebody's pull request.

python tests/test_english.py lists every hit, by file.
"""

import bisect
import collections
import re
import typing

import pytest

import repository

# What stands between two words of a phrase: blanks, also across a line break inside a comment, a docstring, a string
# that continues on the next line, or a quoted paragraph.
GAP = r"""(?:[ \t]+|[ \t]*["']?[ \t]*\n[ \t]*(?:[#>*-][ \t]*|[rf]?["'])?)"""


class Rule(typing.NamedTuple):
    """One banned pattern.

    Attributes:
      pattern: regular expression, case-sensitive; a blank stands for `GAP`.
      instead: what to write.
      caught: a sentence that the pattern must match.
      fine: correct English nearby that it must not match.
    """

    pattern: str
    instead: str
    caught: str
    fine: str


RULES = [
    Rule(
        r"\b(?!there\b|There\b|here\b)\w+ (?:is|are|was|were|be) none\b(?! of\b)",
        "say what it is not: non-finite, not a folder, empty",
        "skips numbers that are none",
        "there are none, and none is needed",
    ),
    Rule(
        r"\b(?!there\b|There\b|here\b)\w+ (?:is|are|was|were) no "
        r"(?!longer\b|more\b|less\b|fewer\b|better\b|worse\b|larger\b|smaller\b|slower\b|faster\b|different\b|match\b"
        r"|good\b|use\b|one\b|accident\b|surprise\b|problem\b)[A-Za-z]\w*",
        '"is not a ..."',
        "a loss that is no number",
        "there is no such file; the run is no longer active and no slower",
    ),
    Rule(
        r"\b(?:is|are|was|were)(?: (?:not|then|also|only))? told\b(?! apart\b)",
        "the program reports, warns or raises; a function receives or is given",
        "long waits are told",
        "near-duplicates are told apart by their thumbnails",
    ),
    Rule(
        r"\b(?:(?:is|are|was|were) said\b(?! to\b)|as was said\b|said of\b)",
        "the program reports, logs or prints; a document states",
        "what a step needs is said before the first one",
        "the network is said to converge",
    ),
    Rule(
        r"\b[Nn]obody (?:told|disturbed|looks at|looked at|waits for|is to|may)\b",
        '"unknown", "undisturbed", or the passive: "must not be read"',
        "None where nobody told which listings are relevant",
        "nobody has measured it on an accelerator",
    ),
    Rule(
        r"\b(?:labels|words|tokens|bytes|rows|pictures|images|vectors|lines|numbers|processes|threads|ms|kB|MB|GB|MiB"
        r"|milliseconds|listings|queries|shards|GFLOP|TFLOP|one|file|run|line|process) an? "
        r"(?:title|label|row|device|line|listing|picture|image|query|step|directory|host|split|shard|vector|example"
        r"|side|cell|batch|GPU|category|class|group|process)\b(?! (?:is|has|was|can|had)\b)",
        '"per": labels per title, one run per directory',
        "the number of labels a title",
        "how many vectors a shard has; 40 pictures a second",
    ),
    Rule(
        r"\bas far as (?:(?:\w+ ){1,3}(?:has|have|had)"
        r"|(?:it|they) (?:is|are|was|were) (?:in|used|known|there|given))\b",
        '"where it has them", "if known", "those that are used"',
        "the axes of the mesh, as far as it has them",
        "as far as we know, it goes as far as it can",
    ),
    Rule(
        r"\bwhich (?:it|they|he) gives? up\b|\bthe process gives up\b",
        "discards, drops, exits",
        "after two minutes the process gives up",
        "the client gives up after three attempts",
    ),
    Rule(
        r"\b(?:go|goes|went|going) on (?:from|where|exactly|at (?:the|any|step)|with the same (?:command|numbers)"
        r"|after a (?:kill|crash))\b",
        "resume, continue",
        "the same command goes on from there",
        "searches go on while rows are written",
    ),
    Rule(
        r"\b(?:of|after|with|the first|average|for|in) so (?:many|long)\b(?! (?:that|as)\b|,)",
        "name the quantity: `steps` steps, after `seconds` seconds, that many",
        "returns after so long without a checkpoint",
        "with so many that they overlap, with so many, no step helps",
    ),
    Rule(
        r"\b(?:equals?|identical|same)\b[^.;:]{0,40} to the (?:bit|byte)\b",
        '"bit for bit", "byte for byte", "bitwise equal"',
        "the embeddings are equal to the bit",
        "the same offset is added to the bytes",
    ),
    Rule(
        r"\b[Vv]ectors? (?:of|with|have|has) [\w{}().,]+ numbers\b|\b(?:[Hh]ow many|of \{?\w+\}?) numbers an? "
        r"(?:row|vector)\b",
        '"dimensions": vectors of 672 dimensions',
        "a gallery of 512 numbers a row",
        "vectors of 512 dimensions and the numbers beside them",
    ),
    Rule(
        r'"""(?:Tells|Says|Is|Are|Asks)\b',
        "start with what the function does: Returns, Reports, Checks, Runs",
        '"""Tells whether a shard is whole."""',
        '"""Returns whether a shard is whole."""',
    ),
    Rule(
        r"\b(?:lies?|lay) (?:in|on) (?:memory|disk|files?|no file|a folder|all devices|every)\b",
        '"is in memory", "is stored on disk", "is spread over all devices"',
        "the split lies in memory as a whole",
        "the two vectors lie in one space",
    ),
    Rule(
        r"\b(?:is|are) there already\b|\bcheckpoints that are there\b|\b(?:what|which) is there\b",
        '"already exists", "existing"',
        "an id that is there already",
        "there is already an id",
    ),
    Rule(r"\ban own\b", '"its own", "a separate"', "each stage has an own index", "each stage has its own index"),
    Rule(
        r"\b[Hh]and(?:s|ed|ing)? on (?:what|the|it|them|its)\b",
        "passes on",
        "a loop that hands on what the blocks return",
        "hands-on examples",
    ),
    Rule(r"\bin silence\b", "silently", "a key dropped in silence", "a key silently dropped"),
    Rule(
        r"\b(?:is|are|was) asked of\b",
        "depends on, comes from",
        "what a word looks like is asked of pictures",
        "what a user asks for",
    ),
    Rule(
        r"\b(?:[Mm]akes?|[Dd]ecodes?|[Rr]eads?|[Nn]eeds?|[Tt]akes?) of (?:a|an|the|it|them) "
        r"[a-zA-Z]+ (?:a|an|the|what)\b",
        'keep the object behind its verb: "decodes only the part of a JPEG that the crop needs"',
        "decodes of a JPEG what the crop needs",
        "what the network makes of the batch; two reads of a file",
    ),
    Rule(
        r"\b(?:run|runs) for moments\b|\bends? endless\b|\bendless end\b",
        "briefly; endless waits end the run",
        "programs that run for moments",
        "it is over in a moment",
    ),
]

OWN = "tests/test_english.py"  # holds what it bans


def compiled(rule: Rule) -> re.Pattern:
    """Returns the pattern of a rule, with GAP for its blanks (those of character classes stay as they are)."""
    parts = re.split(r"(\[[^\]]*\])", rule.pattern)
    return re.compile("".join(part if part.startswith("[") else part.replace(" ", GAP) for part in parts))


def hits(text: str, rule: Rule) -> list[tuple[int, str]]:
    """Returns (line, phrase) of every match of a rule in a text."""
    starts = [0, *(at.end() for at in re.finditer("\n", text))]
    return [(bisect.bisect_right(starts, at.start()), " ".join(at[0].split())) for at in compiled(rule).finditer(text)]


def all_hits() -> dict[str, list[str]]:
    """Returns the sentences about every hit in the Python files and documents of the repository, by file."""
    found = collections.defaultdict(list)
    for file in repository.committed_files(".py", ".md"):
        name, text = file.relative_to(repository.ROOT).as_posix(), repository.text_of(file)
        for rule in RULES if name != OWN else ():
            found[name] += [f"{name}:{line}: {phrase!r}; write {rule.instead}" for line, phrase in hits(text, rule)]
    return {name: sentences for name, sentences in sorted(found.items()) if sentences}


def test_no_file_has_a_banned_phrase():
    sentences = [sentence for listed in all_hits().values() for sentence in listed]
    assert not sentences, f"{len(sentences)} phrases to rewrite:\n" + "\n".join(sentences)


@pytest.mark.parametrize("rule", RULES, ids=[rule.caught for rule in RULES])
def test_every_rule_catches_its_example_and_lets_correct_english_through(rule):
    assert hits(rule.caught, rule) == [(1, hits(rule.caught, rule)[0][1])]
    assert not [phrase for other in RULES for phrase in hits(rule.fine, other)]


@pytest.mark.parametrize(
    "text",
    [
        "# Skips numbers that are\n# none, and counts them.",
        '    """Skips numbers that are\n    none.\n    """',
        'raise InputError(\n    "the loss holds numbers that are "\n    f"none: {loss}"\n)',
        "Numbers that\nare none are skipped.",
        "> numbers that are\n> none",
    ],
    ids=["comment", "docstring", "string", "paragraph", "quotation"],
)
def test_a_line_break_hides_nothing(text):
    assert len(hits(text, RULES[0])) == 1


def test_the_line_of_a_hit_is_the_one_where_the_phrase_begins():
    assert hits("first\nsecond, numbers that are none\nthird", RULES[0]) == [(2, "that are none")]


@pytest.mark.parametrize(
    "text",
    [
        "Where there are none, nothing is written.",
        "if table is None or other is None:",
        "None of them is used; none are dropped.",
        "There is no gallery, so there is no ranking.",
        "A word can be told from the picture alone, and noise cannot be told from signal.",
        "It is said to be faster.",
        "Each step reads 128 pictures; that is 40 pictures a second on one core.",
        "How many numbers an embedding has is its dimension.",
        "The same command resumes from the last checkpoint.",
        "Two of them are near each other; the rest is far away.",
        "an example a newcomer can run",
    ],
)
def test_correct_english_passes(text):
    assert not [phrase for rule in RULES for phrase in hits(text, rule)]


if __name__ == "__main__":
    for name, sentences in all_hits().items():
        print(f"{name}: {len(sentences)}", *sentences, sep="\n  ")
