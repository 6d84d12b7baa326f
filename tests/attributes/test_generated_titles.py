"""Titles of the mining benchmark: reproducible, a shorter list is a prefix of a longer one, and they can be mined."""

from benchmarks import generated_titles
from retrieval_jax.attributes import statistics, titles


def test_generated_titles(monkeypatch, tmp_path):
    monkeypatch.setenv("RETRIEVAL_JAX_REFERENCE", str(tmp_path))
    monkeypatch.setattr(generated_titles, "BLOCK", 100)
    generator = generated_titles.Generator()
    assert "invented words" in generator.source
    made = list(generator.titles(250))
    assert len(made) == 250 and len(set(made)) > 200 and all(map(titles.tokenize, made))
    assert list(generator.titles(120)) == made[:120]
    assert list(generated_titles.Generator().titles(250)) == made
    words = [len(statistics.count([generator.titles(count)]).tokens) for count in (100, 1000)]
    assert words[1] > 3 * words[0]  # new words keep appearing
    generator.seed = 1
    assert list(generator.titles(250)) != made
