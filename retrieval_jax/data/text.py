"""Text as token ids: byte-level BPE trained on a catalogue's own text, or the tokenizers of Hugging Face's models.

    tokenizer = text.train(catalog.train.titles)
    tokens = tokenizer.encode(["red running shoes"], length=32)     # a Ragged column, with start and end tokens

Every text passes `clean` first, so that nothing a shopper can type raises: a query may be empty, a megabyte long, of
any script, or full of control characters. A name of a special token, such as "<mask>", is text like any other.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from retrieval_jax import brief
from retrieval_jax.data import listing_texts
from retrieval_jax.data.cleaning import MOST_CHARACTERS, clean, examine
from retrieval_jax.data.examples import Ragged
from retrieval_jax.data.info import Tokens
from retrieval_jax.data.typos import with_typos
from retrieval_jax.errors import InputError, naming, short
from retrieval_jax.files import atomic

__all__ = [
    "MOST_CHARACTERS",
    "Tokenizer",
    "clean",
    "examine",
    "load",
    "of_run",
    "texts_of",
    "train",
    "with_typos",
]

FOLDER = "text"  # of a work directory
FILE = "tokenizer.json"
QUERIES = {"queries": "text"}  # the table and column of what people typed
# Columns of tokens that predict functions read, and the option of their task that limits the tokens of a text.
TYPED, LISTED = "query_length", "length"
LENGTHS = {"query": TYPED, "words": TYPED, "text": TYPED, "product": LISTED, "tokens": LISTED}
_LEAST, _MOST = 300, 1_000_000  # tokens of a vocabulary: the 256 bytes and special tokens always have a place
_MOST_BYTES = 256 * 2**20  # of a tokenizer's file
_LONGEST = 48  # bytes of a token: a blank-free script has no other end to its words, nor has rubbish
_BLOCK = 4096  # texts that are encoded at a time
# Names of special tokens, in the order in which they are looked for: RoBERTa's, then BERT's.
_SPECIAL = {
    "start": ("<s>", "[CLS]"),
    "pad": ("<pad>", "[PAD]"),
    "end": ("</s>", "[SEP]"),
    "unknown": ("<unk>", "[UNK]"),
    "mask": ("<mask>", "[MASK]"),
}
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Turns texts into token ids.

    Attributes:
      inner: of the library `tokenizers`.
      start: id of the token in front of every text.
      pad: id of the token that fills up a batch; batches here hold zeros there, and a mask.
      end: id of the token behind every text.
      unknown: id of the token for what the vocabulary cannot write; byte-level vocabularies never need it.
      mask: id of the token that hides another one.
    """

    inner: tokenizers.Tokenizer
    start: int
    pad: int
    end: int
    unknown: int
    mask: int

    __repr__ = brief.line

    @property
    def size(self) -> int:
        """Number of rows that a table of this vocabulary's tokens needs."""
        return max(self.inner.get_vocab().values()) + 1

    @property
    def hash(self) -> str:
        """Hex digest of the tokens and their ids."""
        return hashlib.sha256(json.dumps(sorted(self.inner.get_vocab().items())).encode()).hexdigest()

    def tokens(self) -> list[str]:
        """Returns the text of every id, as the vocabulary writes it; "" for an id without a token."""
        out = [""] * self.size
        for token, row in self.inner.get_vocab().items():
            out[row] = token
        return out

    def special(self) -> tuple[int, ...]:
        """Returns the ids of all special tokens, ascending."""
        return tuple(sorted({self.start, self.pad, self.end, self.unknown, self.mask}))

    def encode(self, texts: Sequence[str], length: int) -> Ragged:
        """Returns the token ids of texts, cleaned by `clean`.

        Args:
          texts: n texts; an empty one has its start and end tokens alone.
          length: most tokens of a text, those two included; what follows is cut, and the end token kept.

        Returns:
          `Ragged` of int32, n rows.

        Raises:
          InputError: a length below 3, or something that is not text.
        """
        if length < 3:
            raise InputError(
                f"length is {length}: a text needs 3 tokens at least, its start and end and one of its own"
            )
        rows = []
        for block in _blocks(texts):
            for found in self.inner.encode_batch_fast([clean(text) for text in block]):
                ids = found.ids
                rows.append(ids if len(ids) <= length else [*ids[: length - 1], self.end])
        return Ragged.of(rows)

    def words(self, encoded: Ragged) -> Ragged:
        """Returns which word of its text each token belongs to.

        Args:
          encoded: from `encode`.

        Returns:
          `Ragged` of int32: 0, 1, 2, ... along a text; -1 for its start and end tokens.
        """
        tokens, special = self.tokens(), np.zeros(self.size, bool)
        blank = any(token.startswith("Ġ") for token in tokens)
        begins = np.array([token.startswith("Ġ") if blank else not token.startswith("##") for token in tokens])
        special[[self.start, self.end]] = True
        framing = special[encoded.values]
        first = begins[encoded.values] & ~framing
        first[1:] |= framing[:-1] & ~framing[1:]  # the first word of a text need not have a blank in front
        number = np.cumsum(first)
        lengths = np.diff(encoded.indptr)
        before = np.concatenate([[0], number])[encoded.indptr[:-1]]
        values = np.where(framing, -1, number - 1 - np.repeat(before, lengths))
        return Ragged(encoded.indptr, values.astype(np.int32))

    def facts(self) -> Tokens:
        """Returns what a task needs to know of the tokens."""
        ids = {name: getattr(self, name) for name in ("pad", "mask", "start", "end", "unknown")}
        return Tokens(self.size, **ids, hash=self.hash)

    def save(self, folder) -> None:
        """Writes <folder>/tokenizer.json, which `load` and Hugging Face's libraries read.

        Args:
          folder: is made where it does not exist.
        """
        folder = pathlib.Path(folder)
        with naming(folder):
            folder.mkdir(parents=True, exist_ok=True)
        atomic.write_text(folder / FILE, self.inner.to_str(pretty=True))


def _blocks(texts: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), _BLOCK):
        yield [texts[row] for row in range(start, min(len(texts), start + _BLOCK))]


def _wrapped(inner: tokenizers.Tokenizer, where: str) -> Tokenizer:
    """Returns a tokenizer with its special tokens found."""
    inner.no_truncation()
    inner.no_padding()
    inner.encode_special_tokens = True  # what a shopper types is text, "<mask>" too
    found = {}
    for role, names in _SPECIAL.items():
        ids = [inner.token_to_id(name) for name in names if inner.token_to_id(name) is not None]
        if not ids:
            raise InputError(
                f"{where} has no token {' or '.join(map(repr, names))}: give RoBERTa's or BERT's tokenizer"
            )
        found[role] = ids[0]
    if inner.post_processor is None:
        _frame(inner, found)
    made = Tokenizer(inner, **found)
    if not 1 < made.size <= _MOST:
        raise InputError(f"{where} has {made.size:,} tokens; from 2 to {_MOST:,} can be read")
    empty = inner.encode("").ids
    if empty != [made.start, made.end]:
        raise InputError(
            f"{where} writes an empty text as {empty[:5]} instead of a start and an end token: give RoBERTa's or "
            "BERT's tokenizer"
        )
    return made


def _frame(inner: tokenizers.Tokenizer, ids: Mapping[str, int]) -> None:
    """Sets a start token before and an end token behind every text."""
    start, end = (inner.id_to_token(ids[role]) for role in ("start", "end"))
    inner.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, ids["start"]), (end, ids["end"])]
    )


def train(texts: Iterable[str], vocabulary: int = 8000, lowercase: bool = True) -> Tokenizer:
    """Trains byte-level BPE: any text of any script can be written, and frequent words are single tokens.

    The same texts give the same tokenizer, in any order.

    Args:
      texts: such as titles and typed queries; cleaned by `clean`.
      vocabulary: tokens, the 256 bytes and 5 special ones included; fewer where the texts are few.
      lowercase: whether capitals are read as small letters, and full-width letters as plain ones (form NFKC).

    Raises:
      InputError: a vocabulary out of range, or no text at all.

    Source: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, section 2.2.
    """
    if not _LEAST <= vocabulary <= _MOST:
        raise InputError(f"a vocabulary of {vocabulary} tokens: give a number from {_LEAST} to {_MOST:,}")
    texts = [cleaned for text in texts if (cleaned := clean(text))]
    if not texts:
        raise InputError("cannot train a tokenizer: every text is empty")
    inner = tokenizers.Tokenizer(models.BPE())
    if lowercase:
        inner.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)  # a word is the same first and later
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        max_token_length=_LONGEST,
        show_progress=False,
        special_tokens=[names[0] for names in _SPECIAL.values()],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    inner.train_from_iterator(texts, trainer)
    _frame(inner, {role: inner.token_to_id(names[0]) for role, names in _SPECIAL.items()})
    return _wrapped(inner, "the trained tokenizer")


def load(path) -> Tokenizer:
    """Loads a tokenizer: of a run, or of one of Hugging Face's RoBERTa, BERT and MiniLM models.

    Args:
      path: tokenizer.json, vocab.json (with merges.txt beside it) or vocab.txt; or a folder with one of them, which are
        looked for in that order. vocab.txt is read as BERT's uncased vocabulary, unless a tokenizer_config.json
        beside it has "do_lower_case": false.

    Raises:
      InputError: there is no such file, it cannot be read, or it lacks a special token.
    """
    path = pathlib.Path(path)
    names = (FILE, "vocab.json", "vocab.txt")
    if path.is_dir():
        there = [path / name for name in names if (path / name).exists()]
        if not there:
            raise InputError(f"{path} holds no tokenizer: expected {', '.join(names[:-1])} or {names[-1]}")
        path = there[0]
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; expected a tokenizer: {', '.join(names)}")
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes: a tokenizer has {_MOST_BYTES:,} at most")
    try:
        inner = _read(path)
    except (KeyboardInterrupt, MemoryError, InputError):
        raise
    except BaseException as error:  # a panic of the library is not an Exception
        raise InputError(f"{path} cannot be read as a tokenizer ({short(str(error))}); download it again") from None
    return _wrapped(inner, str(path))


def _read(path: pathlib.Path) -> tokenizers.Tokenizer:
    if path.name.endswith("vocab.txt"):
        config = path.with_name("tokenizer_config.json")
        lowercase = not config.exists() or bool(json.loads(config.read_text("utf-8")).get("do_lower_case", True))
        inner = tokenizers.Tokenizer(models.WordPiece.from_file(str(path), unk_token="[UNK]"))
        inner.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        inner.decoder = decoders.WordPiece()
        return inner
    if path.name.endswith("vocab.json"):
        merges = path.with_name(path.name.removesuffix("vocab.json") + "merges.txt")
        if not merges.is_file():
            raise InputError(f"{path} needs {merges.name} beside it")
        inner = tokenizers.Tokenizer(models.BPE.from_file(str(path), str(merges)))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        return inner
    return tokenizers.Tokenizer.from_file(str(path))


def texts_of(catalog, columns: Sequence[str] = ("title",), tables: Mapping[str, str] = QUERIES) -> list[str]:
    """Returns the text that a run learns words from: that of train listings, and of tables about them.

    Args:
      catalog: `data.catalog.Catalog`.
      columns: see `listing_texts.of`; () for no text of listings.
      tables: {table: its column of texts}, such as the queries typed for them; one that is not there is left out.

    Raises:
      InputError: the train split has no such column, or all of the text is empty.
    """
    found = listing_texts.of(catalog.split("train"), columns) if columns else []
    for name, column in tables.items():
        if f"{name}/train" in catalog.tables:
            found += list(catalog.tables[f"{name}/train"].columns[column])
    if not any(found):
        raise InputError(
            f"catalogue {catalog.name} has no text to learn from: its train split has neither titles nor typed "
            "queries; name text columns in config.train.task_kwargs.text_columns"
        )
    return found


def of_run(options: Mapping, catalog, workdir, start=None, tables: Mapping[str, str] = QUERIES) -> Tokenizer:
    """Returns the tokenizer of a run: that of its work directory, or else a new one, which is written there.

    Args:
      options: "tokenizer", a file or folder that `load` reads, or "" for the run's own; and for that one "vocabulary"
        and "text_columns", see `train` and `texts_of`.
      catalog: what it is trained on; not read where the work directory has one.
      workdir: the work directory, with the tokenizer in its folder "text".
      start: work directory of the run that this one starts from, whose tokens it keeps; None without one.
      tables: see `texts_of`.

    Raises:
      InputError: see `load`, `train` and `texts_of`.
    """
    folder = pathlib.Path(workdir) / FOLDER
    if (folder / FILE).exists():
        return load((folder / FILE).resolve())
    if options.get("tokenizer"):
        made = load(options["tokenizer"])
    elif start is not None and (pathlib.Path(start) / FOLDER / FILE).exists():
        made = load(pathlib.Path(start) / FOLDER / FILE)
    else:
        texts = texts_of(catalog, options.get("text_columns", ("title",)), tables)
        made = train(texts, options.get("vocabulary", 8000))
        if counts := examine(texts):
            listed = ", ".join(f"{count:,} {name}" for name, count in counts.items())
            _log.warning("of %s texts of the catalogue: %s (docs/text.md has the rules)", f"{len(texts):,}", listed)
    made.save(folder)
    return made
