"""Whitening against plain loops, streaming, rank deficiency, and the runner-up's numbers."""

import numpy as np
import pytest

import reference
from retrieval_jax import embeddings, postprocess
from retrieval_jax.embeddings import Embeddings, moments
from retrieval_jax.embeddings.vectors import Computed
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import State, whitening
from retrieval_jax.postprocess.whitening import Whitening


def naive_covariance(vectors):
    count, dim = vectors.shape
    mean = [sum(float(row[i]) for row in vectors) / count for i in range(dim)]
    centred = [[float(x) - m for x, m in zip(row, mean, strict=True)] for row in vectors]
    covariance = [[sum(row[i] * row[j] for row in centred) / count for j in range(dim)] for i in range(dim)]
    return np.array(mean), np.array(covariance)


def naive_inverse_root(matrix, rounds=60):
    """Returns the inverse square root by Denman-Beavers iteration, independently of eigenvectors."""
    root, inverse = matrix.copy(), np.eye(len(matrix))
    for _ in range(rounds):
        root, inverse = (root + np.linalg.inv(inverse)) / 2, (inverse + np.linalg.inv(root)) / 2
    return inverse


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)) + rng.normal(size=5)).astype(np.float32)


def test_zca_equals_naive(vectors):
    mean, covariance = naive_covariance(vectors)
    fitted = whitening.fit(vectors, ridge=0.01)
    matrix = naive_inverse_root(covariance + 0.01 * np.eye(5))
    np.testing.assert_allclose(fitted.matrix, matrix, atol=1e-9)
    centred = [[float(x) - m for x, m in zip(row, mean, strict=True)] for row in vectors[:20]]
    expected = [[sum(x * matrix[i, j] for i, x in enumerate(row)) for j in range(5)] for row in centred]
    np.testing.assert_allclose(fitted.apply(vectors[:20]), expected, atol=1e-5)


def test_whitened_vectors_have_unit_covariance(vectors):
    for dim in (None, 5, 3):
        whitened = whitening.fit(vectors, dim=dim).apply(vectors).astype(np.float64)
        assert whitened.shape == (300, dim or 5)
        np.testing.assert_allclose(whitened.T @ whitened / 300, np.eye(dim or 5), atol=1e-4)


def test_pca_keeps_the_directions_of_largest_variance():
    rng = np.random.default_rng(1)
    vectors = (rng.normal(size=(500, 3)) * [1, 30, 5]).astype(np.float32)
    fitted = whitening.fit(vectors, dim=2)
    assert np.abs(fitted.matrix).argmax(0).tolist() == [1, 2]
    assert (fitted.matrix[[1, 2], [0, 1]] > 0).all()  # signs are fixed
    scores = np.abs(np.corrcoef(fitted.apply(vectors).T, vectors.T)[:2, 2:])
    assert scores[0, 1] > 0.99 and scores[1, 2] > 0.99


def test_shards_and_blocks_give_the_same_fit(vectors, tmp_path, monkeypatch):
    whole = whitening.fit(vectors)
    ids = [str(row) for row in range(300)]
    Embeddings(ids, vectors).save(tmp_path / "e", shard_rows=77)
    monkeypatch.setattr(moments, "FIT_ROWS", 32)
    monkeypatch.setattr(moments, "SHIFT_ROWS", 7)
    streamed = whitening.fit(Embeddings.load(tmp_path / "e"))
    np.testing.assert_allclose(streamed.mean, whole.mean, atol=1e-12)
    np.testing.assert_allclose(streamed.matrix, whole.matrix, atol=1e-9)
    applied = whole.apply(vectors)
    monkeypatch.setattr(whitening, "APPLY_ROWS", 7)
    np.testing.assert_allclose(whole.apply(vectors), applied, rtol=2e-7)


def test_vectors_are_read_once(vectors):
    class Counting:
        shape, read = vectors.shape, 0

        def __getitem__(self, key):
            block = vectors[key]
            Counting.read += len(block)
            return block

    mean, covariance = moments.moments(Counting())
    expected_mean, expected = naive_covariance(vectors)
    np.testing.assert_allclose(mean, expected_mean, atol=1e-12)
    np.testing.assert_allclose(covariance, expected, atol=1e-12)
    assert Counting.read <= 300 + moments.SHIFT_ROWS


@pytest.mark.parametrize("order", ["sorted", "the shift rows are outliers"])
def test_a_mean_far_from_zero_costs_no_digits(order, monkeypatch):
    # E[x^2] - mean^2 loses all 16 digits here, and a shift that misses the mean loses some
    rng = np.random.default_rng(3)
    vectors = 1e8 + np.sort(rng.normal(size=(4096, 3)), axis=0)
    monkeypatch.setattr(moments, "SHIFT_ROWS", 16)
    if order != "sorted":
        vectors[np.linspace(0, 4095, 16).astype(int)] += 50
    mean, covariance = moments.moments(vectors)
    small = vectors - 1e8
    np.testing.assert_allclose(mean, 1e8 + small.mean(0), rtol=1e-15)
    np.testing.assert_allclose(covariance, np.cov(small.T, bias=True), rtol=1e-9)


@pytest.mark.parametrize("dim", [None, 4])
@pytest.mark.parametrize("ridge", [0.0, 1e-7])
def test_rank_deficiency_does_not_blow_up(ridge, dim):
    rng = np.random.default_rng(2)
    few = rng.normal(size=(4, 20)).astype(np.float32)  # fewer vectors than dimensions
    constant = rng.normal(size=(50, 6)).astype(np.float32)
    constant[:, 2] = 7
    constant[:, 3] = constant[:, 0]
    large = 1e6 * rng.normal(size=(50, 2)).astype(np.float32) @ rng.normal(size=(2, 6)).astype(np.float32)
    for gallery in (few, constant):
        fitted = whitening.fit(gallery, ridge, dim)
        other = fitted.apply(gallery + rng.normal(size=gallery.shape).astype(np.float32))  # leaves the gallery's span
        assert np.isfinite(fitted.matrix).all() and np.abs(other).max() < 100
    assert np.isfinite(whitening.fit(large, ridge, dim).matrix).all()
    same = np.full((5, 4), 0.1, np.float32)
    for gallery in (same, same.astype(np.float64), same * (1 + np.float32(6e-8) * rng.integers(0, 2, (5, 4)))):
        with pytest.raises(InputError, match="all 5 vectors are the same"):
            whitening.fit(gallery.astype(np.float32), ridge, dim)


def test_save_and_load_round_trip(vectors, tmp_path):
    fitted = whitening.fit(vectors, dim=3)
    fitted.save(tmp_path / "deep" / "whitening.npz")
    again = Whitening.load(tmp_path / "deep" / "whitening.npz")
    assert np.array_equal(again.apply(vectors), fitted.apply(vectors))
    assert again.info == fitted.info == {"rows": 300, "method": "pca", "ridge": 1e-7, "dim": 3}
    assert again.version() == fitted.version() != whitening.fit(vectors, dim=2).version()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["whitening.npz"]
    (tmp_path / "bad.npz").write_bytes(b"no")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "deep" / "whitening.npz").read_bytes()[:-40])
    np.savez(tmp_path / "old.npz", mean=fitted.mean, matrix=fitted.matrix)
    with np.load(tmp_path / "deep" / "whitening.npz") as arrays:
        np.savez(tmp_path / "mixed.npz", mean=arrays["mean"] + 1, matrix=arrays["matrix"], info=arrays["info"])
    for name in ("none.npz", "bad.npz", "cut.npz", "old.npz", "mixed.npz"):
        with pytest.raises(InputError, match=name):
            Whitening.load(tmp_path / name)


def test_another_space_is_rejected(vectors):
    ids = [str(row) for row in range(300)]
    one, other = (Embeddings(ids, vectors, {"space": space}) for space in ("a", "b"))
    fitted = whitening.fit(one)
    assert fitted.info["space"] == "a" and fitted.info["ids_sha256"] == one.ids.sha256()
    whitened = fitted.apply(one)
    assert np.array_equal(whitened.vectors, fitted.apply(vectors)) and whitened.ids is one.ids
    assert whitened.meta["space"] == f"a|whitening-{fitted.version()}" and whitened.meta["whitening"] == fitted.info
    for wrong in (other, whitened, Embeddings(ids, vectors)):
        with pytest.raises(InputError, match="fitted in the space 'a'"):
            fitted.apply(wrong)
    assert len(whitening.fit(vectors).apply(other)) == 300  # a bare array has no space to check
    with pytest.raises(InputError, match="5 dimensions"):
        fitted.apply(Embeddings(ids, vectors[:, :4], {"space": "a"}))


def test_a_large_gallery_is_whitened_on_read(vectors, monkeypatch):
    gallery = Embeddings([str(row) for row in range(300)], vectors.astype(np.float16), {"space": "a"})
    (kept,) = postprocess.get("whitening").step(State([(gallery, gallery)])).members
    monkeypatch.setattr(embeddings.folder, "KEPT_BYTES", 0)
    (read,) = postprocess.get("whitening").step(State([(gallery, gallery)])).members
    assert isinstance(read[1].vectors, Computed) and isinstance(kept[1].vectors, np.ndarray)
    for rows in (slice(20, 290), np.array([5, 299, 0])):
        np.testing.assert_allclose(read[1].vectors[rows], kept[1].vectors[rows], atol=1e-7)


def test_bad_input_is_rejected(vectors):
    broken = vectors.copy()
    broken[17, 3] = np.nan
    with pytest.raises(InputError, match=r"row 17 \(item17\)"):
        whitening.fit(Embeddings([f"item{row}" for row in range(300)], broken))
    for arguments, word in (((vectors[:1],), "two vectors"), ((vectors, -1.0), "ridge"), ((vectors, 0.0, 6), "dim=6")):
        with pytest.raises(InputError, match=word):
            whitening.fit(*arguments)
    with pytest.raises(InputError, match="5 dimensions"):
        whitening.fit(vectors).apply(np.zeros((2, 4)))


def test_the_step_fits_on_the_gallery_and_whitens_both_sides(vectors, tmp_path):
    gallery = Embeddings([str(row) for row in range(300)], vectors, {"space": "a"})
    queries = Embeddings(["q0", "q1"], vectors[:2] + 1, {"space": "a"})
    state = postprocess.get("whitening").step(State([(queries, gallery)], None, ("one/two",), tmp_path), dim=4)
    fitted = whitening.fit(vectors, dim=4)
    for side, before in zip(state.members[0], (queries, gallery), strict=True):
        expected = fitted.apply(before.vectors)
        np.testing.assert_allclose(side.vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
        assert side.ids == before.ids and side.meta["space"] == f"a|whitening-{fitted.version()}"
    assert np.array_equal(Whitening.load(tmp_path / "whitening_one_two.npz").matrix, fitted.matrix)


def test_parity_with_the_runner_up():
    with np.load(reference.path("parity/postprocess.npz")) as file:
        fitted = whitening.fit(file["gallery_0"])
        for side in ("query", "gallery"):
            assert np.abs(fitted.apply(file[f"{side}_0"]) - file[f"whitened_{side}_0"]).max() <= 1e-3


# ------------------------------------------------------------------------------------------------ milder whitening


def plain_matrix(covariance, power, ridge=1e-7, relative=0.0):
    """Returns (covariance + ridges) ** -power by singular values, not by the eigenvectors that the module uses."""
    full = covariance + (ridge + relative * np.trace(covariance) / len(covariance)) * np.eye(len(covariance))
    left, values, right = np.linalg.svd(full)
    return left @ np.diag(values**-power) @ right


@pytest.mark.parametrize("power, relative", [(0.0, 0.0), (0.1, 0.0), (0.25, 0.01), (0.5, 0.1), (1.0, 0.0)])
def test_power_and_relative_ridge_equal_plain_numpy(vectors, power, relative):
    mean, covariance = naive_covariance(vectors)
    fitted = whitening.fit(vectors, power=power, relative_ridge=relative)
    np.testing.assert_allclose(fitted.mean, mean, atol=1e-12)
    np.testing.assert_allclose(fitted.matrix, plain_matrix(covariance, power, relative=relative), atol=1e-9)
    assert fitted.info["ridge"] == 1e-7 and fitted.info.get("power", 0.5) == power


@pytest.mark.parametrize("rows, width, dtype", [(250, 40, np.float32), (20, 40, np.float16), (300, 5, np.float64)])
def test_shrinkage_is_ledoit_and_wolfs(rows, width, dtype, monkeypatch):
    covariance = pytest.importorskip("sklearn.covariance")
    rng = np.random.default_rng(4)
    vectors = (rng.normal(size=(rows, width)) * np.linspace(0.3, 2, width) + 3).astype(dtype)
    expected, share = covariance.ledoit_wolf(vectors.astype(np.float64))
    monkeypatch.setattr(moments, "FIT_ROWS", 7)
    fitted = whitening.fit(vectors, shrink=True, power=0.25)
    assert fitted.info["shrinkage"] == pytest.approx(share, rel=1e-9) and 0 < share < 1
    np.testing.assert_allclose(fitted.matrix, plain_matrix(expected, 0.25), atol=1e-9)


@pytest.mark.parametrize("centre", ["common", "own"])
@pytest.mark.parametrize("fit_on", ["gallery", "queries", "both", "train"])
def test_each_side_has_the_centre_and_the_covariance_that_were_asked_for(fit_on, centre):
    rng = np.random.default_rng(5)
    rows = {"query": rng.normal(size=(40, 4)) + 3, "gallery": rng.normal(size=(90, 4)) * [1, 2, 3, 4], "train": None}
    rows["train"] = rng.normal(size=(60, 4)) @ rng.normal(size=(4, 4)) - 1
    sides = {name: Embeddings([str(i) for i in range(len(v))], v, {"space": "s"}) for name, v in rows.items()}
    fitted = whitening.fit_sides(
        sides["query"], sides["gallery"], sides["train"], centre=centre, fit_on=fit_on, power=0.25, shrink=True
    )
    wide = {name: np.asarray(side.block(0, len(side)), np.float64) for name, side in sides.items()}
    if fit_on == "both" and centre == "own":
        used = np.concatenate([wide["query"] - wide["query"].mean(0), wide["gallery"] - wide["gallery"].mean(0)])
    else:
        names = {"both": ("query", "gallery"), "queries": ("query",)}.get(fit_on, (fit_on,))
        used = np.concatenate([wide[name] for name in names])
    found = moments.measure(used)
    share, covariance = found.shrinkage(), np.cov(used.T, bias=True)
    mixed = (1 - share) * covariance + share * np.trace(covariance) / 4 * np.eye(4)
    np.testing.assert_allclose(fitted.matrix, plain_matrix(mixed, 0.25), atol=1e-7)
    for side in ("query", "gallery"):
        mean = wide[side].mean(0) if centre == "own" else used.mean(0)
        expected = (wide[side] - mean) @ fitted.matrix
        np.testing.assert_allclose(fitted.apply(sides[side], side).block(0, 5), expected[:5], atol=1e-5)


def test_own_centres_are_two_maps_of_one_space(vectors, tmp_path):
    ids = [str(row) for row in range(300)]
    queries, gallery = (Embeddings(ids, side, {"space": "s"}) for side in (vectors + 2, vectors))
    fitted = whitening.fit_sides(queries, gallery, centre="own", fit_on="queries", power=0.1)
    spaces = {fitted.apply(side, name).meta["space"] for side, name in ((queries, "query"), (gallery, "gallery"))}
    assert spaces == {f"s|whitening-{fitted.version()}"}
    np.testing.assert_allclose(
        fitted.apply(queries, "query").block(0, 9), fitted.apply(gallery, "gallery").block(0, 9), atol=1e-4
    )
    with pytest.raises(InputError, match="a centre for queries and one for the gallery"):
        fitted.apply(vectors)
    fitted.save(tmp_path / "own.npz")
    again = Whitening.load(tmp_path / "own.npz")
    assert again.version() == fitted.version() and np.array_equal(again.query_mean, fitted.query_mean)
    shared = Whitening(fitted.mean, fitted.matrix, fitted.info)
    assert shared.version() != fitted.version()
    with np.load(tmp_path / "own.npz") as arrays:
        np.savez(tmp_path / "moved.npz", **{**arrays, "query_mean": arrays["query_mean"] + 1})
        np.savez(tmp_path / "lost.npz", **{name: arrays[name] for name in ("mean", "matrix", "info")})
    for name in ("moved.npz", "lost.npz"):
        with pytest.raises(InputError, match=name):
            Whitening.load(tmp_path / name)


@pytest.mark.parametrize("fit_on", ["gallery", "queries", "both"])
@pytest.mark.parametrize("kwargs", [{}, {"relative_ridge": 0.01}, {"shrink": True}, {"power": 0.0}])
def test_few_rows_give_finite_bounded_vectors(fit_on, kwargs):
    rng = np.random.default_rng(6)
    sides = [Embeddings([str(i) for i in range(n)], rng.normal(size=(n, 30)).astype(np.float16)) for n in (5, 12)]
    fitted = whitening.fit_sides(*sides, centre="own", fit_on=fit_on, **kwargs)
    for side, name in zip(sides, ("query", "gallery"), strict=True):
        found = fitted.apply(side, name).block(0, len(side))
        assert np.isfinite(found).all() and np.abs(found).max() < 1e3


def test_settings_that_cannot_be_are_refused(vectors):
    state = State([(Embeddings([str(i) for i in range(300)], vectors),) * 2])
    for kwargs, words in (
        ({"power": -0.1}, "power"),
        ({"power": 1.5}, "power"),
        ({"relative_ridge": float("nan")}, "relative_ridge"),
        ({"shrink": "yes"}, "shrink"),
        ({"centre": "owm"}, "did you mean 'own'|own"),
        ({"fit_on": "querys"}, "queries"),
        ({"fit_on": "train"}, "no embeddings of train listings"),
    ):
        with pytest.raises(InputError, match=words):
            whitening.step(state, **kwargs)
