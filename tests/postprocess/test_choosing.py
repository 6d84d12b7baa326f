"""The choice of search steps: what it takes and leaves on catalogues made for it, determinism, and what is missing."""

import dataclasses

import numpy as np
import pytest

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.embeddings.evidence import Evidence
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import State, choosing, stand_ins, walk

PRODUCTS, DIM = 300, 24


@pytest.fixture(autouse=True)
def few_candidates(monkeypatch):
    """Half of the candidates: the rules are the same for all."""
    monkeypatch.setattr(choosing, "WHITENINGS", choosing.WHITENINGS[::2] + choosing.WHITENINGS[-1:])
    monkeypatch.setattr(choosing, "NEIGHBOURS", choosing.NEIGHBOURS[:1])


def embeddings(vectors, prefix=""):
    return Embeddings([f"{prefix}{row}" for row in range(len(vectors))], vectors.astype(np.float32), {"space": "s"})


def catalogue(kind, seed=0):
    """Returns queries, gallery, evidence and the right row of each query.

    In "noisy", queries differ from their products in the many directions in which products hardly vary: full whitening
    drowns the product in them. In "dominated", three directions say nothing and have most of the variance: whitening
    finds what is below. In both, altered pictures differ from their originals as queries do.
    """
    rng = np.random.default_rng(seed)
    if kind == "noisy":
        spread, noise, shift = np.where(np.arange(DIM) < 6, 1.0, 0.02), 0.25, 0.3
    else:
        spread, noise, shift = np.where(np.arange(DIM) < 3, 8.0, 0.6), np.where(np.arange(DIM) < 3, 8.0, 0.15), 0.0
    gallery = rng.normal(size=(PRODUCTS, DIM)) * spread + 0.5

    def looked_at():
        return gallery + rng.normal(size=gallery.shape) * noise + shift

    altered = Embeddings([str(row) for row in range(PRODUCTS)], looked_at().astype(np.float32), {"space": "s"})
    return embeddings(looked_at(), "q"), embeddings(gallery), Evidence(altered=altered), np.arange(PRODUCTS)[:, None]


def score(steps, queries, gallery, right):
    return choosing.recalls(choosing.apply(steps, queries, gallery), right).mean()


def test_full_whitening_is_left_alone_where_it_hurts():
    queries, gallery, evidence, right = catalogue("noisy")
    plain = score((), queries, gallery, right)
    assert score((("whitening", {}),), queries, gallery, right) < plain - 0.2
    choice = choosing.choose_steps(queries, gallery, evidence)
    assert score(choosing.steps_of(choice), queries, gallery, right) >= plain
    full = [row for row in choice["rows"] if row["steps"] and row["steps"][0][1].get("power") == 0.5]
    assert full and all(row["verdict"] != "chosen" for row in full)


def test_whitening_is_chosen_where_it_helps():
    queries, gallery, evidence, right = catalogue("dominated")
    choice = choosing.choose_steps(queries, gallery, evidence)
    steps = choosing.steps_of(choice)
    assert steps[0][0] == "whitening" and steps[0][1]["power"] >= 0.25
    assert score(steps, queries, gallery, right) > score((), queries, gallery, right) + 0.1
    assert "over the plain cosine on altered" in choice["why"]
    assert sum(row["verdict"] == "chosen" for row in choice["rows"]) == 1


def test_the_choice_is_deterministic():
    queries, gallery, evidence, _ = catalogue("dominated", 1)
    assert choosing.choose_steps(queries, gallery, evidence) == choosing.choose_steps(queries, gallery, evidence)


def test_more_hubs_or_no_gain_beyond_noise_keep_the_plain_cosine(monkeypatch):
    queries, gallery, evidence, _ = catalogue("dominated")
    monkeypatch.setattr(choosing, "HUBS_MORE", -100.0)
    choice = choosing.choose_steps(queries, gallery, evidence)
    assert choosing.steps_of(choice) == () and choice["why"] == "the plain cosine: no candidate was accepted"
    gains = [row for row in choice["rows"][1:] if "no gain" not in row["verdict"]]
    assert gains and all("more hubs" in row["verdict"] for row in gains)
    rng = np.random.default_rng(0)  # vectors without any structure: every candidate is chance
    noise = [embeddings(rng.normal(size=(PRODUCTS, DIM)), prefix) for prefix in ("q", "", "")]
    choice = choosing.choose_steps(*noise[:2], Evidence(altered=noise[2]))
    assert choosing.steps_of(choice) == ()


def test_what_is_missing_is_said_and_leaves_the_plain_cosine(monkeypatch):
    queries, gallery, evidence, _ = catalogue("dominated")
    choice = choosing.choose_steps(queries, gallery)
    assert (choice["steps"], choice["rows"]) == ([], []) and len(choice["notes"]) == 3
    assert choice["why"] == "the plain cosine: nothing can be tried without stand-ins for the queries"
    other = dataclasses.replace(evidence.altered, ids=[f"other {row}" for row in range(PRODUCTS)])
    choice = choosing.choose_steps(queries, gallery, Evidence(altered=other))
    assert choice["steps"] == [] and "0 altered pictures of this gallery" in " ".join(choice["notes"])
    few = queries.take(np.arange(20))
    monkeypatch.setattr(choosing, "WHITENINGS", choosing.WHITENINGS[:3])
    choice = choosing.choose_steps(few, gallery, evidence)
    tried = [
        row["steps"][0][1]["centre"] for row in choice["rows"] if row["steps"] and row["steps"][0][0] == "whitening"
    ]
    assert set(tried) == {"common"} and "fewer than 100 queries, here 20" in " ".join(choice["notes"])


def test_what_cannot_be_tried_is_noted_and_the_rest_goes_on(monkeypatch):
    queries, gallery, evidence, _ = catalogue("dominated")
    monkeypatch.setattr(
        choosing, "WHITENINGS", [one for one in choosing.WHITENINGS if one[0][1]["fit_on"] != "gallery"]
    )
    same = Embeddings(queries.ids, np.ones((PRODUCTS, DIM), np.float32), queries.meta)  # nothing to whiten by
    choice = choosing.choose_steps(same, gallery, evidence)
    assert any("fit on: queries) cannot be tried: whitening: all" in note for note in choice["notes"])
    assert all("fit on: queries" not in line[0] for line in choosing.table(choice) if line[-1] == "chosen")
    assert all(
        row["steps"][0][0] != "query_expansion"
        for row in choosing.choose_steps(queries, gallery, evidence, k=5)["rows"][1:]
    )


def test_titles_stand_in_for_queries_and_their_look_decides_who_asks():
    rng = np.random.default_rng(2)
    products = rng.normal(size=(400, DIM))
    shift = np.zeros(DIM)
    shift[0] = 8.0  # users' photos lie elsewhere
    train = np.concatenate([products + shift, products]) + 0.1 * rng.normal(size=(800, DIM))
    agreeing = np.concatenate([np.arange(400, 800), np.arange(400)])
    evidence = Evidence(embeddings(train), np.arange(801), agreeing)
    queries, gallery = (
        embeddings(rng.normal(size=(200, DIM)) + shift, "q"),
        embeddings(rng.normal(size=(200, DIM)), "g"),
    )
    (trial,), notes = stand_ins.trials(queries, gallery, evidence)
    assert trial.name == "titles" and [note.split(":")[0] for note in notes] == ["altered"]
    assert (len(trial.queries), len(trial.gallery)) == (400, 400)
    assert trial.fit_rows == (200, 200)  # as many as the search itself has
    asks = {int(name) for name in trial.queries.ids}
    assert asks == set(range(400))  # those that look like queries, and only those
    for query, right in zip(trial.queries.ids, trial.right, strict=True):
        assert [trial.gallery.ids[row] for row in right] == [str(int(query) + 400)]
    # where both sides look alike, every third asks
    alike = stand_ins.trials(embeddings(products[:200], "q"), embeddings(products[200:]), evidence)[0][0]
    assert {int(name) % 3 for name in alike.queries.ids} == {0}


def test_the_walk_applies_what_was_chosen_as_one_stage_and_saves_it(tmp_path, capsys):
    queries, gallery, evidence, _ = catalogue("dominated")
    state = State([(queries, gallery)], None, ("trained",), tmp_path, evidence=(evidence,))
    found = list(walk.walk(state, [walk.FIRST, *walk.parse((("chosen", {}),))], rank, {"cosine", "chosen"}))
    assert [step.stage for step, _ in found] == ["cosine", "chosen"]
    choice = choosing.load(tmp_path)
    assert choice == choosing.choose_steps(queries, gallery, evidence)
    expected = choosing.apply(choosing.steps_of(choice), queries, gallery)
    assert np.array_equal(found[1][1].ranking.item_rows[:, :10], expected)
    out = capsys.readouterr().out
    assert "trained: chosen steps: " in out and "plain cosine" in out and "verdict" in out
    (tmp_path / choosing.FILE).write_text('{"steps": 3}')
    with pytest.raises(InputError, match="run search again"):
        choosing.load(tmp_path)
    assert choosing.load(tmp_path / "none") is None and choosing.steps_of(None) == ()


def test_re_ranking_that_was_chosen_is_ranked_first(monkeypatch):
    queries, gallery, _, _ = catalogue("noisy")
    chosen = (("whitening", {"power": 0.1}), ("query_expansion", {"depth": 2}), ("reranking", {}))
    steps, searched = walk.parse((("chosen", {"stage": "mine"}), ("l2", {}))), []

    def counted(state, stage):
        searched.append(stage)
        return rank(state, stage)

    state = State([(queries, gallery)])
    (_, last), _ = walk.walk(state, steps, counted, {"mine"}, lambda _: chosen)
    assert searched == ["mine-1", "mine-2"]
    assert np.array_equal(last.ranking.item_rows[:, :10], choosing.apply(chosen, queries, gallery))


def test_steps_are_chosen_for_one_model_and_come_first():
    with pytest.raises(InputError, match="'chosen' after 'l2': put it first"):
        walk.parse((("l2", {}), ("chosen", {})))
    with pytest.raises(InputError, match="no argument 'power'"):
        walk.parse((("chosen", {"power": 0.1}),))
    queries, gallery, _, _ = catalogue("noisy")
    with pytest.raises(InputError, match="one model at a time"):
        choosing.for_state(State([(queries, gallery)] * 2))


def test_only_the_best_are_tried_on_more_than_the_first_stand_ins(monkeypatch):
    queries, gallery, evidence, _ = catalogue("dominated")
    titles = stand_ins.Trial("titles", *trial_sides(evidence.altered, gallery), tuple(np.arange(PRODUCTS)[:, None]))
    altered = dataclasses.replace(titles, name="altered")
    monkeypatch.setattr(choosing, "trials", lambda *_: ([titles, altered], []))
    choice = choosing.choose_steps(queries, gallery, evidence)
    assert choice["steps"]
    whole = {row["verdict"]: "altered" in row["means"] and row["hubs"] is not None for row in choice["rows"]}
    assert whole["chosen"] and whole["the plain cosine"] and not whole["another gains more"]
    assert all(line.count("") == 2 for line in choosing.table(choice) if line[-1] == "another gains more")


def trial_sides(altered, gallery):
    return dataclasses.replace(altered, ids=[f"altered {name}" for name in altered.ids]), gallery


def test_of_those_that_are_as_good_within_noise_the_one_with_fewest_hubs_is_taken(monkeypatch):
    queries, gallery, _, _ = catalogue("noisy")
    rng, powers = np.random.default_rng(0), (0.1, 0.2, 0.3)
    means, hubs = {0: 0.2, 0.1: 0.5, 0.2: 0.49, 0.3: 0.35}, {0: 2.0, 0.1: 1.9, 0.2: 1.0, 0.3: 0.1}
    titles = {power: rng.random(200) * 0.1 + mean for power, mean in means.items()}
    altered = {power: rng.random(200) for power in means}
    kinds = [stand_ins.Trial(name, queries, gallery, (name,)) for name in ("titles", "altered")]
    monkeypatch.setattr(choosing, "WHITENINGS", [(("whitening", {"power": p, "centre": "common"}),) for p in powers])
    monkeypatch.setattr(choosing, "NEIGHBOURS", ())
    monkeypatch.setattr(choosing, "trials", lambda *_: (kinds, []))
    monkeypatch.setattr(choosing, "apply", lambda steps, *_: steps[0][1]["power"] if steps else 0)
    monkeypatch.setattr(
        choosing, "recalls", lambda power, right: {"titles": titles, "altered": altered}[right[0]][power]
    )
    monkeypatch.setattr(choosing, "hubness", lambda power, _: hubs[power])
    means_of = [titles[power].mean() for power in (0.1, 0.2)]
    titles[0.2] += means_of[0] - means_of[1]  # as good as the first to the last digit
    choice = choosing.choose_steps(queries, gallery)
    assert choice["steps"][0][1]["power"] == 0.2
    verdicts = [row["verdict"] for row in choice["rows"]]
    assert verdicts == ["the plain cosine", "as good, with more hubs", "chosen", "another gains more"]
    altered[0.2] -= 0.5
    choice = choosing.choose_steps(queries, gallery)
    assert choice["steps"][0][1]["power"] == 0.1
    assert choice["rows"][2]["verdict"] == "loses on altered"
    # Where titles cannot tell, altered pictures decide, unless titles object.
    for power in powers:
        titles[power] = titles[0] + rng.normal(size=200) * 0.1
        altered[power] = altered[0] + (0.3 if power == 0.1 else 0.0)
    choice = choosing.choose_steps(queries, gallery)
    assert choice["steps"][0][1]["power"] == 0.1 and "over the plain cosine on altered" in choice["why"]
    assert all(set(row["means"]) == {"titles", "altered"} for row in choice["rows"])
    titles[0.1] = titles[0] - 0.2
    assert choosing.choose_steps(queries, gallery)["steps"] == []


def test_the_table_has_a_row_per_candidate_and_the_sentence_reads_well():
    queries, gallery, evidence, _ = catalogue("dominated")
    head, first, *others = choosing.table(choosing.choose_steps(queries, gallery, evidence))
    assert head == ["steps", "altered", "hubs", "verdict"] and first[0] == "plain cosine"
    assert len(others) == len(choosing.WHITENINGS) + len(choosing.NEIGHBOURS)
    steps = (
        ("whitening", {"power": 0.25, "centre": "own", "fit_on": "both", "relative_ridge": 0.0}),
        ("reranking", {}),
    )
    assert choosing.sentence(steps) == "whitening (power 0.25, centre: own, fit on: both), then reranking"


def rank(state, stage):
    from retrieval_jax.index import exact

    del stage
    return exact.Index(state.members[0][1]).search(state.members[0][0], 100)
