"""An LSTM that writes a listing's attributes one after the other, and the search for the most probable sequence.

Labels are values of fields, field after field, so a sequence is a list of ascending labels. `Grammar` says which label
may follow which: a field with one value has exactly one, a many-valued field has several in ascending order, and an
optional one may be left out.
"""

import dataclasses
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax.models import heads

START = -1  # the label before the first
DECISIONS = ("expected_f1", "probability")
_NEVER = -1e9  # the logit of a label that may not follow; finite, so that a row of them has no NaN


@dataclasses.dataclass(frozen=True)
class Grammar:
    """Which label may follow which.

    Attributes:
      sizes: values of each field.
      many: whether a field may have several values.
      optional: whether a field may have none.
      most: values of a field, at most.
    """

    sizes: tuple[int, ...]
    many: tuple[bool, ...]
    optional: tuple[bool, ...]
    most: tuple[int, ...]

    @classmethod
    def of(cls, fields: Sequence) -> "Grammar":
        """Returns the grammar of `data.info.LearnedField`s."""
        return cls(
            tuple(field.values for field in fields),
            tuple(field.many for field in fields),
            tuple(field.optional for field in fields),
            tuple(field.most for field in fields),
        )

    @property
    def end(self) -> int:
        """The label that ends a sequence: the number of values V."""
        return sum(self.sizes)

    @property
    def length(self) -> int:
        """Values of the longest sequence."""
        return sum(self.most)

    @property
    def field_of(self) -> np.ndarray:
        """The field of every label, int32 [V + 1]; the end is a field of its own, after all others."""
        return np.repeat(np.arange(len(self.sizes) + 1), (*self.sizes, 1)).astype(np.int32)

    def field_before(self, label: jax.Array) -> jax.Array:
        """Returns the field of labels [...], -1 for START."""
        return jnp.where(label < 0, -1, jnp.asarray(self.field_of)[jnp.maximum(label, 0)])

    def allowed(self, before: jax.Array, used: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """Returns which labels may come next.

        Args:
          before: int [...], the label before.
          used: int [...], how many labels the sequence has of that label's field.
          known: bool [..., fields]; a field that is not known is left out, so nothing is learned about its values, not
            even that they are absent. None: all fields are known.

        Returns:
          bool [..., V + 1].
        """
        count = len(self.sizes)
        needed = jnp.asarray([not one for one in self.optional])
        needed = needed if known is None else needed & known
        places = jnp.where(needed, jnp.arange(count), count)
        limits = jax.lax.cummin(places, axis=places.ndim - 1, reverse=True)  # the next field that needs a value
        limits = jnp.concatenate([limits, jnp.full((*limits.shape[:-1], 1), count)], axis=-1)
        field = self.field_before(before)
        limits = jnp.broadcast_to(limits, (*field.shape, count + 1))
        limit = jnp.take_along_axis(limits, (field + 1)[..., None], axis=-1)
        fields, labels = jnp.asarray(self.field_of), jnp.arange(self.end + 1)
        full = (used >= jnp.asarray((*self.most, 1))[jnp.maximum(field, 0)])[..., None]
        out = (labels > before[..., None]) & (fields <= limit) & ~((fields == field[..., None]) & full)
        if known is not None:
            out &= jnp.concatenate([known, jnp.ones((*known.shape[:-1], 1), bool)], axis=-1)[..., fields]
        return out


class Decoder(nn.Module):
    """An LSTM over the labels written so far, which is added to what the picture says of each label by itself.

    The picture has a sigmoid per value; the logits of a step are the logarithms of these probabilities plus what the
    labels before change. The LSTM sees labels only, as vectors of unit variance: with the picture as an input to each
    step it learned to ignore what was written, because it knows the pictures of train too well.

    Attributes:
      num_labels: values and the end, V + 1.
      dims: width of the cell and of the vectors of labels.
      init_scale: of the logits' initial weights, see `heads.Head`.
      first_bias: initial biases of the sigmoids' logits, V of them.

    Source: "Visual Fashion-Product Search at SK Planet", arXiv 1609.07859, writes attributes with an LSTM; that the
    cell does not see the picture is our choice.
    """

    num_labels: int
    dims: int = 256
    init_scale: float = 0.1
    first_bias: tuple[float, ...] | None = None

    def setup(self):
        self.labels = nn.Embed(self.num_labels, self.dims, embedding_init=nn.initializers.normal(1.0))
        self.cell = nn.OptimizedLSTMCell(self.dims)
        self.written = heads.Head(self.num_labels, self.init_scale)
        self.seen = heads.Head(self.num_labels - 1, self.init_scale, self.first_bias)

    def __call__(self, pooled: jax.Array) -> jax.Array:
        """Returns the logits [B, V + 1] of the first label, for `init`."""
        return self.step(*self.start(self.alone(pooled)), jnp.full(len(pooled), START))[1]

    def alone(self, pooled: jax.Array) -> jax.Array:
        """Returns the logit of each value by itself, [B, V], for vectors of pictures [B, D]."""
        return self.seen(pooled)

    def start(self, alone: jax.Array) -> tuple:
        """Returns the first state of the cell, and what every step adds, [B, V + 1], for logits of `alone`."""
        hidden = jnp.zeros((len(alone), self.dims))
        return (hidden, hidden), jnp.pad(jax.nn.log_sigmoid(alone.astype(jnp.float32)), ((0, 0), (0, 1)))

    def step(self, state: tuple, seen: jax.Array, before: jax.Array) -> tuple[tuple, jax.Array]:
        """Reads the label before.

        Args:
          state: of the cell.
          seen: of `start`.
          before: int [B], START at first.

        Returns:
          The next state, and the logits [B, V + 1] of the next label.
        """
        read = self.labels(jnp.where(before < 0, self.num_labels - 1, before))  # the end is never read
        state, hidden = self.cell(state, read)
        return state, seen + self.written(hidden)


def logits_of(step: Callable, start: tuple, targets: jax.Array, guesses: Callable | None = None) -> jax.Array:
    """Runs a decoder over given sequences (teacher forcing).

    Args:
      step: (state, seen, before [B]) -> (state, logits [B, V + 1]).
      start: (state, seen).
      targets: int [B, T], the labels to write.
      guesses: (number of the step, logits) -> (bool [B], labels [B]): where the decoder reads a label of its own in
        place of the true one (scheduled sampling, arXiv 1506.03099); None for nowhere.

    Returns:
      [B, T, V + 1], each after the labels before it.
    """
    state, seen = start

    def scanned(carry, given):
        state, before = carry
        number, target = given
        state, logits = step(state, seen, before)
        if guesses is not None:
            own, guess = guesses(number, logits)
            target = jnp.where(own, guess, target)
        return (state, target), logits

    first = jnp.full(len(targets), START)
    _, logits = jax.lax.scan(scanned, (state, first), (jnp.arange(targets.shape[1]), targets.T))
    return logits.swapaxes(0, 1)


def used_before(grammar: Grammar, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns for labels [B, T] the label before each [B, T], and how many labels of its field there are by then."""
    before = jnp.concatenate([jnp.full((len(targets), 1), START), targets[:, :-1]], axis=1)
    fields = grammar.field_before(before)
    same = (fields[:, :, None] == fields[:, None, :]) & jnp.tri(fields.shape[1], dtype=bool)
    return before, same.sum(axis=-1)


def search(
    step: Callable,
    start: tuple,
    grammar: Grammar,
    *,
    beam: int,
    decision: str = "expected_f1",
    length_penalty: float = 0.0,
    given: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """Finds the best sequence of labels of each picture by beam search.

    Given labels are forced: only sequences that contain all of them are kept, wherever they are in the order. Their
    probability counts, so what comes before them follows them too: of two types, the one wins in which the given colour
    is common.

    The probability of a label is how often it is written, on average over the sequences before it: the sum over steps
    and beams of (share of the beam) * (probability of the label after it). Unlike the probability after the single best
    beginning, it counts how sure that beginning is. A label before a given one has the share of the beams that have it.

    Args:
      step, start: see `logits_of`.
      grammar: of the labels.
      beam: sequences that are kept.
      decision: which of them is the best, see DECISIONS. "expected_f1": the set with the largest expected F1, as the
        labels' probabilities have it, 2 * (sum over its labels) / (their number + sum over all labels); of sets of one
        size, the one with most right labels on average. "probability": the most probable sequence, which may begin with
        a less probable label because it is surer of the others.
      length_penalty: of "probability": log probability / length ** length_penalty is compared; 1 is the mean over
        labels, which favours longer sequences.
      given: bool [B, V], labels that have to be in the sequence; None for none.

    Returns:
      "chosen" bool [B, V], the labels of the best sequence; "probabilities" [B, V]; "log_probability" [B], of the
      sequence.

    Source: decisions by expected score rather than by probability: Kumar and Byrne, "Minimum Bayes-Risk Decoding for
    Statistical Machine Translation", NAACL 2004.
    """
    (state, seen), end, labels = start, grammar.end, jnp.arange(grammar.end + 1)
    rows = len(jax.tree.leaves(seen)[0])
    state, seen = jax.tree.map(lambda x: jnp.repeat(x, beam, axis=0), (state, seen))
    given = None if given is None else _fitting(grammar, given)
    guide = None if given is None else _Guide(grammar, given)

    def scanned(carry, number):
        state, before, used, score, written, expected, own = carry
        state, logits = step(state, seen, before.reshape(-1))
        logits = logits.reshape(rows, beam, end + 1)
        allowed, ended = grammar.allowed(before, used), before == end
        log_p = jax.nn.log_softmax(jnp.where(allowed, logits, _NEVER), axis=-1)
        if guide is not None:
            allowed &= guide.allowed(before, used)
        # how often a label is written next
        after = jax.nn.softmax(jnp.where(allowed, logits, _NEVER), axis=-1) * (allowed & ~ended[..., None])
        after = after[..., :end]
        expected += jnp.einsum("rb,rbv->rv", jax.nn.softmax(score, axis=-1), after)
        if guide is not None:
            own += jnp.where((before >= guide.last[:, None])[..., None], after, 0.0)
        best = score[..., None] + jnp.where(allowed, log_p, -jnp.inf)
        stays = jnp.where(labels == end, score[..., None], -jnp.inf)
        best = jnp.where(ended[..., None], stays, best).reshape(rows, -1)
        score, places = jax.lax.top_k(best, beam)
        parent, label = places // (end + 1), places % (end + 1)

        def follow(x):
            return jnp.take_along_axis(x, parent.reshape(rows, beam, *(1,) * (x.ndim - 2)), axis=1)

        state = jax.tree.map(lambda x: follow(x.reshape(rows, beam, -1)).reshape(rows * beam, -1), state)
        same = grammar.field_before(label) == grammar.field_before(follow(before))
        used = jnp.where(same, follow(used), 0) + 1
        written = follow(written).at[:, :, number].set(label)
        return (state, label, used, score, written, expected, follow(own)), None

    first = (
        state,
        jnp.full((rows, beam), START),
        jnp.zeros((rows, beam), jnp.int32),
        jnp.broadcast_to(jnp.where(jnp.arange(beam) == 0, 0.0, -jnp.inf), (rows, beam)),
        jnp.full((rows, beam, grammar.length + 1), end),
        jnp.zeros((rows, end)),
        jnp.zeros((rows, beam, 0 if guide is None else end)),
    )
    (_, _, _, score, written, expected, own), _ = jax.lax.scan(scanned, first, jnp.arange(grammar.length + 1))
    held = jnp.zeros((rows, beam, end + 1), bool)
    held = held.at[jnp.arange(rows)[:, None, None], jnp.arange(beam)[:, None], written].set(True)[..., :end]
    if guide is None:
        probabilities = _of_fields(grammar, expected)
    else:
        weights = jax.nn.softmax(score, axis=-1)
        shares = jnp.einsum("rb,rbv->rv", weights, held.astype(jnp.float32))
        # Until they have passed the given labels, beams are comparable only if they pass them at the same step.
        # Otherwise the beams of the end count, which have fewer beginnings.
        expected = jnp.where(guide.in_step[:, None], expected, jnp.einsum("rb,rbv->rv", weights, own))
        probabilities = jnp.where(labels[:end] < guide.last[:, None], shares, _of_fields(grammar, expected))
        probabilities = jnp.where(given, 1.0, jnp.where(guide.shut, 0.0, probabilities))
    length = jnp.maximum((written != end).sum(-1), 1)
    if decision == "probability":
        worth = score / length**length_penalty
    else:
        right = jnp.einsum("rbv,rv->rb", held.astype(jnp.float32), probabilities)
        worth = 2 * right / (length + probabilities.sum(axis=1, keepdims=True))
        # An empty set scores 1 if the listing has no label either, else 0: the probability of that is its own.
        worth = jnp.where(held.any(axis=-1), worth, jnp.exp(score))
    best = jnp.argmax(jnp.where(score > -jnp.inf, worth, -jnp.inf), axis=1)
    return {
        "chosen": jnp.take_along_axis(held, best[:, None, None], axis=1)[:, 0],
        "probabilities": probabilities,
        "log_probability": jnp.take_along_axis(score, best[:, None], axis=1)[:, 0],
    }


def _of_fields(grammar: Grammar, expected: jax.Array) -> jax.Array:
    """Returns probabilities [B, V] that add up to 1 in fields that have exactly one value, and are at most 1 in all."""
    fields = grammar.field_of[:-1]
    whole = jnp.asarray([not many and not may for many, may in zip(grammar.many, grammar.optional, strict=True)])
    totals = jnp.zeros((len(expected), len(grammar.sizes))).at[:, fields].add(expected)
    return jnp.where(whole[fields], expected / jnp.maximum(totals[:, fields], 1e-9), jnp.minimum(expected, 1.0))


def _fitting(grammar: Grammar, given: jax.Array) -> jax.Array:
    """Returns given labels bool [B, V] without those beyond what their field holds, which no sequence could have."""
    fields, sizes = np.asarray(grammar.field_of)[:-1], np.asarray(grammar.sizes)
    earlier = jnp.cumsum(given, axis=1) - given
    place = earlier - earlier[:, (np.cumsum(sizes) - sizes)[fields]]
    return given & (place < np.asarray(grammar.most)[fields])


class _Guide:
    """What given labels leave of the labels that may follow.

    Args:
      grammar: of the labels.
      given: bool [B, V].

    Attributes:
      shut: bool [B, V], labels that a given one rules out: the others of a field with one value.
      last: int [B], the last given label, START for none.
      in_step: bool [B], whether every sequence has the given labels at the same places.
    """

    def __init__(self, grammar: Grammar, given: jax.Array):
        self.grammar, end = grammar, grammar.end
        fields, labels = jnp.asarray(grammar.field_of), jnp.arange(end + 1)
        with_end = jnp.concatenate([given, jnp.ones((len(given), 1), bool)], axis=1)
        # the next given label, or the end after the last one
        self.next = jax.lax.cummin(jnp.where(with_end, labels, end), axis=1, reverse=True)
        of_field = jnp.zeros((len(given), len(grammar.sizes)), jnp.int32).at[:, fields[:end]].add(given)
        one = jnp.asarray([not many for many in grammar.many])
        self.shut = (one & (of_field > 0))[:, fields[:end]] & ~given
        self.last = jnp.where(given, labels[:end], START).max(axis=1)
        exactly_one = [not many and not may for many, may in zip(grammar.many, grammar.optional, strict=True)]
        aligned = jnp.asarray((True, *np.logical_and.accumulate(exactly_one)))
        self.in_step = aligned[grammar.field_before(self.last) + 1]
        # given labels of the same field that come later: room that a many-valued field has to keep for them
        upto = jnp.cumsum(with_end, axis=1)
        last_of_field = jnp.asarray(np.cumsum((*grammar.sizes, 1)) - 1)[fields]
        self.later = upto[:, last_of_field] - upto

    def allowed(self, before: jax.Array, used: jax.Array) -> jax.Array:
        """Returns bool [B, K, V + 1] for the labels before [B, K] and the number of labels of their field."""
        grammar, end = self.grammar, self.grammar.end
        fields, labels = jnp.asarray(grammar.field_of), jnp.arange(end + 1)
        due = jnp.take_along_axis(self.next, jnp.minimum(before + 1, end), axis=1)[..., None]
        same = fields == grammar.field_before(before)[..., None]
        count = jnp.where(same, used[..., None], 0) + 1 + self.later[:, None]
        room = count <= jnp.asarray((*grammar.most, 1))[fields]
        shut = jnp.concatenate([self.shut, jnp.zeros((len(self.shut), 1), bool)], axis=1)
        return (labels <= due) & room & ~shut[:, None]
