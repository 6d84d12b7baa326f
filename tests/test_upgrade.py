"""Upgrades of a gallery: fitted on a sample, searched in the new space, continued, and half written."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from retrieval_jax import __main__ as door
from retrieval_jax import embed, mine, search, train, upgrade
from retrieval_jax import workdir as workdirs
from retrieval_jax.embeddings import Embeddings, adapters, read_info
from retrieval_jax.errors import InputError
from retrieval_jax.models.backbones import convnext
from retrieval_jax.settings import base
from retrieval_jax.workdir import freshness, hashes, sides
from tiny import TINY, tiny_config


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two trained runs of one catalogue, "old" and "new", of other seeds; the old one has embedded its gallery."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(convnext.VARIANTS, "tiny test", TINY)
        folder = tmp_path_factory.mktemp("runs")
        for seed, name in enumerate(("old", "new")):
            config = tiny_config()
            config.data.kwargs.num_gallery = 40
            config.train.epochs, config.train.warmup_epochs, config.train.seed = 0.3, 0.0, seed
            config.embed.models, config.search.steps = ("trained",), ()
            mine.run(config, folder / name)
            train.run(config, folder / name)
            (folder / name / "config.json").write_text(config.to_json())
        embed.run(ConfigDict(workdirs.read_config(folder / "old")), folder / "old")
        yield folder


def upgraded(runs, adapter):
    """Returns the config of a search that trains nothing."""
    config = ConfigDict(workdirs.read_config(runs / "new"))
    base.without_training(config)
    config.search.query_from.run = str(runs / "new")
    config.search.gallery_from.update({"run": str(runs / "old"), "adapter": str(adapter)})
    return config


def test_an_old_gallery_is_searched_in_the_new_space(runs, tmp_path, capsys):
    out = tmp_path / "adapter"
    door.main(["upgrade", str(runs / "old"), "--to", str(runs / "new"), "--out", str(out), "--rows=25"])
    said = capsys.readouterr().out
    assert "25 of 40 listings embedded again (62 %)" in said and "25 of them were embedded now" in said
    config = upgraded(runs, out)
    embed.run(config, tmp_path / "run")
    assert "15 listings of" in capsys.readouterr().out  # no picture of the gallery was embedded
    side = sides.of(config)["gallery"]
    found = Embeddings.load(tmp_path / "run" / "embeddings" / side.folder / "gallery")
    old = Embeddings.load(runs / "old" / "embeddings" / "trained" / "gallery")
    adapter = adapters.Adapter.load(out)
    assert found.meta["space"] == adapter.target != old.meta["space"] == adapter.source
    np.testing.assert_allclose(found.vectors[:], adapter.upgraded(old).vectors[:], rtol=1e-5)
    assert search.run(config, tmp_path / "run")["gallery"] == 40
    (tmp_path / "run" / "config.json").write_text(config.to_json())
    door.main(["compare", str(tmp_path / "run"), "--against", str(tmp_path / "run")])  # with what the upgrade costs
    assert f"{tmp_path / 'run'}: upgrade: 25 of 40 listings embedded again (62 %)" in capsys.readouterr().out
    before = freshness.Data(config, tmp_path / "run").of("embed")
    more = upgrade.run(runs / "old", runs / "new", out, rows=40)  # continues: only what is missing is embedded
    assert "15 of them were embedded now" in capsys.readouterr().out
    changes = freshness.Data(config, tmp_path / "run").changes("embed", before)
    assert changes == "the content of config.search.gallery_from.adapter changed"
    everything = more.upgraded(old)
    assert everything.meta["upgraded"] == {"adapted": 0, "renewed": 40}
    rows = [list(more.renewed.ids).index(name) for name in adapter.renewed.ids]
    np.testing.assert_allclose(more.renewed.vectors[np.array(rows)], adapter.renewed.vectors[:], atol=1e-6)
    assert read_info(out / adapters.RENEWED)["rows"] == 40
    info = json.loads((out / "adapter.json").read_text())
    (out / "adapter.json").write_text(json.dumps({**info, "weights_sha256": "0" * 64}))  # as after a kill
    with pytest.raises(InputError, match="not of one adapter"):
        embed.run(config, tmp_path / "run")


def test_one_space_needs_no_adapter(runs, tmp_path):
    with pytest.raises(InputError, match="embed into one space already"):
        upgrade.run(runs / "old", runs / "old", tmp_path / "adapter")
    with pytest.raises(InputError, match="has embedded no gallery"):
        upgrade.run(runs / "new", runs / "old", tmp_path / "adapter")


def test_an_adapter_belongs_to_the_gallery_of_another_run():
    for search_block in ({"query_from": {"run": "a", "adapter": "b"}}, {"gallery_from": {"adapter": "b"}}):
        with pytest.raises(InputError, match="adapter is for the gallery that another run has embedded"):
            sides.of({"search": search_block})
    side = sides.of({"search": {"gallery_from": {"run": "old", "adapter": "runs/b"}}})["gallery"]
    assert side.folder.startswith("trained-adapter=runs_b-run=old") and "through the adapter runs/b" in str(side)


def test_hashes_of_runs_without_an_adapter_are_as_before():
    config = tiny_config()
    config.search.gallery_from.run = "large"
    old = ConfigDict(config.to_dict())
    del old.search.gallery_from["adapter"]
    for verb in ("embed", "search"):
        assert hashes.stage_hash(config, verb) == hashes.stage_hash(old, verb)
