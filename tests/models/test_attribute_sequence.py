"""The search for attributes against all sequences there are, written out one by one."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.losses import sequence as losses
from retrieval_jax.models.attribute_sequence import START, Decoder, Grammar, logits_of, search, used_before

# type: one of 2; colours: one to two of 3; parts: none to two of 2; season: one of 2
GRAMMAR = Grammar((2, 3, 2, 2), (False, True, True, False), (False, False, True, False), (1, 2, 2, 1))
END = 9
TABLE = np.random.default_rng(3).normal(0, 1.5, (2, END + 1, END + 1)).astype(np.float32)  # picture, label before, next


def sequences(known=(True,) * 4) -> list[tuple[int, ...]]:
    """Returns every sequence that the grammar allows, the end included."""
    starts, found = np.cumsum((0, *GRAMMAR.sizes)), []
    for field, size in enumerate(GRAMMAR.sizes):
        labels = range(starts[field], starts[field] + size)
        least, most = 0 if GRAMMAR.optional[field] else 1, GRAMMAR.most[field]
        sets = itertools.chain(*(itertools.combinations(labels, count) for count in range(least, most + 1)))
        found.append(list(sets) if known[field] else [()])
    return [(*sum(parts, ()), END) for parts in itertools.product(*found)]


def log_p(picture: int, sequence: tuple, valid: list) -> float:
    """Returns the log probability of a sequence: at each label a softmax over those that a valid sequence has there."""
    total, before = 0.0, END  # the table's last row is the start
    for number, label in enumerate(sequence):
        options = {one[number] for one in valid if one[:number] == sequence[:number]}
        logits = TABLE[picture, before]
        total += logits[label] - np.log(sum(np.exp(logits[one]) for one in options))
        before = label
    return total


def step(state, seen, before):
    (picture,) = seen
    return state, jnp.asarray(TABLE)[picture, jnp.where(before == START, END, before)]


START_OF = ((jnp.zeros((2, 1)),), (jnp.arange(2),))


@functools.cache
def compiled(**settings):
    """Returns `search` with these settings, as a function of the given labels bool [2, END]."""
    return jax.jit(lambda given: search(step, START_OF, GRAMMAR, given=given, **settings))


def searched(given=(), **settings):
    flags = np.zeros((2, END), bool)
    flags[:, list(given)] = True
    return jax.tree.map(np.asarray, compiled(**settings)(flags))


@functools.cache
def exact(picture, given=()):
    """Returns the probability of every sequence that has the given labels, {sequence: p}."""
    valid = sequences()
    weights = {one: np.exp(log_p(picture, one, valid)) for one in valid}
    assert np.isclose(sum(weights.values()), 1)
    kept = {one: weight for one, weight in weights.items() if set(given) <= set(one)}
    return {one: weight / sum(kept.values()) for one, weight in kept.items()}, kept


# no guidance; the first label; a label in the middle; a part and a season; both colours that are allowed
@pytest.mark.parametrize("given", [(), (1,), (3,), (6, 8), (2, 4)])
def test_a_wide_beam_is_exact(given):
    found = searched(given, beam=200, decision="probability")
    for picture in range(2):
        posterior, joint = exact(picture, given)
        best = max(posterior, key=posterior.get)
        assert np.flatnonzero(found["chosen"][picture]).tolist() == list(best[:-1])
        assert np.isclose(found["log_probability"][picture], np.log(joint[best]), atol=1e-4)
        marginals = [sum(p for one, p in posterior.items() if label in one) for label in range(END)]
        np.testing.assert_allclose(found["probabilities"][picture], marginals, atol=1e-4)


def test_the_best_set_has_the_largest_expected_f1():
    found = jax.jit(lambda: search(step, START_OF, GRAMMAR, beam=200))()  # without guidance at all
    for picture in range(2):
        posterior, _ = exact(picture)
        marginals = np.array([sum(p for one, p in posterior.items() if label in one) for label in range(END)])

        def worth(one, marginals=marginals):
            return 2 * marginals[list(one[:-1])].sum() / (len(one) - 1 + marginals.sum())

        best = max(posterior, key=worth)
        assert np.flatnonzero(found["chosen"][picture]).tolist() == list(best[:-1])
        np.testing.assert_allclose(found["probabilities"][picture], marginals, atol=1e-4)


@pytest.mark.parametrize("beam", [1, 3])
def test_a_narrow_beam_keeps_to_the_grammar_and_to_what_is_given(beam):
    for given in ((), (0,), (5,), (3, 6), (7,)):
        found = searched(given, beam=beam)
        valid = {one[:-1] for one in sequences()}
        for picture in range(2):
            chosen = tuple(np.flatnonzero(found["chosen"][picture]).tolist())
            assert chosen in valid and set(given) <= set(chosen)
            p = np.asarray(found["probabilities"][picture])
            assert (
                (p >= 0).all() and (p <= 1 + 1e-5).all() and np.isclose(p[:2].sum(), 1) and (p[list(given)] == 1).all()
            )
            assert np.isclose(p[7:].sum(), 1, atol=1e-5)


def test_the_length_penalty_prefers_the_best_mean():
    plain = searched(beam=200, decision="probability")["chosen"]
    mean = searched(beam=200, decision="probability", length_penalty=1.0)["chosen"]
    for picture in range(2):
        posterior, _ = exact(picture)
        best = max(posterior, key=lambda one: np.log(posterior[one]) / (len(one) - 1))
        assert np.flatnonzero(mean[picture]).tolist() == list(best[:-1])
    assert mean.sum() >= plain.sum()


@pytest.mark.parametrize("known", [(True,) * 4, (True, False, True, True), (False, True, False, True), (False,) * 4])
def test_the_loss_is_the_probability_of_the_sequence_without_unknown_fields(known):
    rng = np.random.default_rng(0)
    valid = sequences(known)
    chosen = [valid[int(rng.integers(len(valid)))] for _ in range(2)]
    width = GRAMMAR.length + 1
    targets = jnp.asarray([[*one, *[END] * (width - len(one))] for one in chosen])
    counted = jnp.arange(width) < jnp.asarray([[len(one)] for one in chosen])
    before, used = used_before(GRAMMAR, targets)
    flags = jnp.broadcast_to(jnp.asarray(known), (2, width, 4))
    allowed = GRAMMAR.allowed(before, used, flags)
    found = losses.cross_entropy(logits_of(step, START_OF, targets), targets, allowed, counted)
    np.testing.assert_allclose(found, [-log_p(i, one, valid) for i, one in enumerate(chosen)], rtol=1e-4, atol=1e-5)


def test_every_parameter_of_the_decoder_gets_a_gradient_and_later_labels_depend_on_earlier_ones():
    decoder = Decoder(END + 1, dims=8, first_bias=(0.0,) * END)
    pooled = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)), jnp.float32)
    params = decoder.init(jax.random.key(0), pooled)
    sequence = (0, 2, 3, 5, 7, END)

    def logits(params, second=2):
        def run(state, seen, before):
            return decoder.apply(params, state, seen, before, method="step")

        targets = jnp.asarray([[0, second, *sequence[2:]]] * 3)
        return logits_of(
            run, decoder.apply(params, decoder.apply(params, pooled, method="alone"), method="start"), targets
        )

    gradient = jax.grad(lambda params: (logits(params) ** 2).sum())(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    one, other = logits(params, 2), logits(params, 4)
    assert np.allclose(one[:, :2], other[:, :2]) and np.abs(one[:, 2:] - other[:, 2:]).min() > 0


def test_given_labels_beyond_what_a_field_holds_are_left_out():
    found = searched((0, 2, 3, 4), beam=3)  # of three colours, a listing has two at most
    for picture in range(2):
        assert {0, 2, 3} <= set(np.flatnonzero(found["chosen"][picture]).tolist()) and not found["chosen"][picture, 4]
        assert np.isfinite(found["probabilities"][picture]).all()
    for name, expected in searched((0, 2, 3), beam=3).items():
        np.testing.assert_array_equal(found[name], expected)


def test_no_label_at_all_is_chosen_where_that_is_likeliest():
    grammar = Grammar((2,), (True,), (True,), (2,))

    def step(state, seen, before):
        return state, jnp.where(before[:, None] == START, jnp.log(jnp.array([0.06, 0.04, 0.9])), 0.0)

    found = search(step, ((jnp.zeros((1, 1)),), (jnp.arange(1),)), grammar, beam=8)
    assert not found["chosen"].any() and np.isclose(found["log_probability"][0], np.log(0.9))
