"""The verb embed in two real processes: own shards each, killed, on again, then only what is new; and stale weights."""

import os
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

import tiny
from retrieval_jax import embed, inference, tasks
from retrieval_jax.data import info as info_lib
from retrieval_jax.data.catalog import Catalog, Split
from retrieval_jax.data.info import DataInfo
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.training import sharding

INFO = DataInfo([], np.zeros(0, np.int64), 9, (), (), "abc")


def make_task(config=None, data_info=INFO):
    def embedding(params, batch):
        return {"embedding": batch["image"].reshape(len(batch["image"]), -1) / 255.0 @ params["w"]}

    def init(rng, batch):
        return {"w": jax.random.normal(rng, (batch["image"][0].size, 6))}

    return tasks.Task(init, None, {"embed_image": tasks.Predict(embedding)}, "tiny")


def make_config(**changes):
    return tiny.embedding_config({"models": ("untrained",), "shard_rows": 8, "views": (), **changes})


def make_catalog(changed=False):
    """A query of 5 listings, a gallery of 60; `changed`: one gone, one new, one with another picture."""
    images = np.random.default_rng(0).integers(0, 256, (61, 4, 4, 3), dtype=np.uint8)
    ids = [f"g{i}" for i in range(61)]
    if changed:
        images[30] = 255 - images[30]
    keep = np.arange(1, 61) if changed else np.arange(60)
    return Catalog(
        "tiny",
        query=Split("query", [f"q{i}" for i in range(5)], None, None, images[:5]),
        gallery=Split("gallery", [ids[i] for i in keep], None, None, images[keep]),
    )


def child(folder, kill):
    """One process: embeds with the tiny network; rank `kill` kills itself when its third shard is to be written."""
    sharding.initialize()
    tasks.get = lambda name: type("tiny", (), {"make": staticmethod(make_task)})
    embed.loading.load = lambda block: make_catalog()
    real, calls = embed.inference.predict, []

    def predict(predict_fn, params, columns, *, rows, **kwargs):
        calls.append(len(rows))
        if kill == jax.process_index() and len(calls) == 4:  # one of query, two of gallery are done
            os.kill(os.getpid(), signal.SIGKILL)
        return real(predict_fn, params, columns, rows=rows, **kwargs)

    embed.inference.predict = predict
    summary = embed.run(make_config(), folder)["embeddings"]["untrained"]
    print("EMBEDDED", sum(calls), summary["gallery"], flush=True)


def start(folder, kill=-1):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"import test_embed_processes as t; t.child({str(folder)!r}, {kill})"
    here = os.path.dirname(__file__)
    children = []
    for rank in range(2):
        env = {
            **os.environ,
            "JAX_NUM_CPU_DEVICES": "2",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join([os.path.dirname(here), here]),
            sharding.VARIABLE: f"127.0.0.1:{port},2,{rank}",
        }
        children.append(
            subprocess.Popen(
                [sys.executable, "-c", code], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )
    return children


def outputs(children):
    found = []
    for process in children:
        out, err = process.communicate(timeout=180)
        assert process.returncode == 0, err
        found.append(out)
    return [int(out.split("EMBEDDED ")[1].split()[0]) for out in found]


def check(folder, catalog):
    w = np.asarray(
        make_task().init(jax.random.split(jax.random.key(1))[0], {"image": np.zeros((1, 4, 4, 3), np.uint8)})["w"]
    )
    for split in (catalog.query, catalog.gallery):
        found = Embeddings.load(folder / "embeddings" / "untrained" / split.name, verify=True)
        assert list(found.ids) == split.ids
        naive = split.images.reshape(len(split), -1) / 255.0 @ w
        np.testing.assert_allclose(found.block(0, len(found)), naive, atol=1e-4)
    return found


def test_two_processes_share_the_shards_and_go_on_after_a_kill(tmp_path, monkeypatch, capsys):
    info_lib.save(tmp_path / "checkpoints" / "data_info.json", INFO)
    info_lib.save_batch(tmp_path / "checkpoints" / "batch.json", {"image": np.zeros((1, 4, 4, 3), np.uint8)})
    children = start(tmp_path, kill=1)
    children[1].communicate(timeout=180)
    children[0].kill()  # it waits for the other
    children[0].communicate(timeout=60)
    assert children[1].returncode == -signal.SIGKILL
    assert not (tmp_path / "embeddings" / "untrained" / "gallery").exists()
    partial = tmp_path / "embeddings" / "untrained" / ".gallery.partial"
    done = sorted(file.name for file in partial.glob("[0-9]*[0-9].json"))
    assert {"00004.json", "00005.json"} <= set(done) and "00006.json" not in done

    embedded = outputs(start(tmp_path))
    assert sum(embedded) == 60 - sum(min(8, 60 - 8 * int(name[:5])) for name in done), (embedded, done)
    check(tmp_path, make_catalog())
    monkeypatch.setattr("retrieval_jax.data.loading.load", lambda block: make_catalog(changed=True))
    monkeypatch.setattr(tasks, "get", lambda name: type("tiny", (), {"make": staticmethod(make_task)}))
    embed.run(make_config(), tmp_path)  # one process continues what two wrote
    assert "60 listings = 58 kept + 1 new + 1 changed; 1 of the 60 before are gone" in capsys.readouterr().out
    check(tmp_path, make_catalog(changed=True))


@pytest.fixture
def one_process(tmp_path, monkeypatch):
    """Returns a function that embeds here and returns how many pictures the network saw."""
    info_lib.save(tmp_path / "checkpoints" / "data_info.json", INFO)
    info_lib.save_batch(tmp_path / "checkpoints" / "batch.json", {"image": np.zeros((1, 4, 4, 3), np.uint8)})
    monkeypatch.setattr("retrieval_jax.data.loading.load", lambda block: make_catalog())
    real, seen = inference.predict, []

    def predict(predict_fn, params, columns, *, rows, **kwargs):
        seen.append(len(rows))
        return real(predict_fn, params, columns, rows=rows, **kwargs)

    monkeypatch.setattr(inference, "predict", predict)

    def run(weights=1.0, **changes):
        def make(config, info):
            task = make_task(config, info)
            return tasks.Task(
                lambda rng, batch: {"w": task.init(rng, batch)["w"] * weights}, None, task.predict_fns, "tiny"
            )

        monkeypatch.setattr(tasks, "get", lambda name: type("tiny", (), {"make": staticmethod(make)}))
        seen.clear()
        embed.run(make_config(**changes), tmp_path)
        meta = Embeddings.load(tmp_path / "embeddings" / "untrained" / "gallery").meta
        return sum(seen), meta["space"], meta["recipe"]

    return run


def test_other_weights_make_another_space_and_other_settings_another_recipe_and_nothing_is_stale(one_process):
    first, space, recipe = one_process()
    assert first == 65 and one_process() == (0, space, recipe)
    assert one_process(batch_size=4, shard_rows=16) == (0, space, recipe)  # these change no vector
    doubled, flipped = one_process(weights=2.0), one_process(views=(("flip", {}),))
    assert doubled[0] == flipped[0] == 65 and len({recipe, doubled[2], flipped[2]}) == 3
    assert doubled[1] != space and flipped[1] == space  # a mirrored view may be compared with a plain one
    assert one_process() == (65, space, recipe) and one_process(dtype="float16") == (65, space, recipe)
