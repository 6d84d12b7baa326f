"""Exported models: run without the training code, equal to the trained model, for any number of pictures."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import ml_collections
import numpy as np
import pytest
import safetensors.numpy

import tiny
import tiny_trained
from retrieval_jax import __main__ as door
from retrieval_jax import export, exported, inference, tasks, workdir
from retrieval_jax.data import info as info_lib
from retrieval_jax.data.examples import Ragged
from retrieval_jax.errors import InputError
from retrieval_jax.settings import base, eproduct
from retrieval_jax.training import checkpoints

ROOT = pathlib.Path(__file__).resolve().parents[1]
PICTURES = np.random.default_rng(3).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
pytestmark = pytest.mark.usefixtures("little_compilation", "tiny_variant")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tiny_trained.save(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def served(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "model"
    door.main(["export", f"--workdir={trained}", f"--out={folder}"])
    return folder


def test_programs_hold_no_paths_of_the_machine(served):
    programs = list(served.glob("*.jax_export"))
    assert programs and not any(b".py" in program.read_bytes() for program in programs)


ALONE = """
import json, sys
import jax
jax.config.update("jax_disable_most_optimizations", True)
import numpy as np
folder, pictures = sys.argv[1], np.load(sys.argv[2], allow_pickle=False)

# nothing of retrieval_jax: what docs/serving_a_checkpoint.md shows
import safetensors.numpy
from jax import export
params = {}
for name, value in safetensors.numpy.load_file(f"{folder}/model.safetensors").items():
    node = params
    for key in name.split("/")[:-1]:
        node = node.setdefault(key, {})
    node[name.split("/")[-1]] = value
program = export.deserialize(bytearray(open(f"{folder}/embed.jax_export", "rb").read()))
bare = np.asarray(jax.jit(program.call)(params, pictures)["embedding"])
assert not any(name.startswith("retrieval_jax") for name in sys.modules)

from retrieval_jax import exported
model = exported.load(folder)
loaded = model.embed(list(pictures))
attributes = model.predict_attributes(list(pictures), top=2)
code = [name for name in sys.modules if name.split(".")[0] in ("flax", "orbax", "optax", "grain")
        or name.startswith(("retrieval_jax.models", "retrieval_jax.tasks", "retrieval_jax.train"))]
np.savez(sys.argv[3], bare=bare, loaded=loaded)
print(json.dumps({"code": code, "attributes": attributes}))
"""


def test_embeddings_equal_the_trained_models_to_the_bit_without_the_training_code(trained, served, tmp_path):
    np.save(tmp_path / "pictures.npy", PICTURES)
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(served), str(tmp_path / "pictures.npy"), str(tmp_path / "out.npz")],
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["code"] == []
    model = inference.load(trained)
    wanted = model.embed(list(PICTURES))
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert np.array_equal(found["loaded"], wanted)  # the same batch of 8 on the same platform
        np.testing.assert_allclose(found["bare"], wanted, rtol=1e-5, atol=1e-6)  # a batch of 5
    for ours, theirs in zip(said["attributes"], model.predict_attributes(list(PICTURES), top=2), strict=True):
        assert [tuple(entry) for entry in ours] == theirs


def test_models_are_shown_in_one_line(trained, served):
    for model in (exported.load(served), inference.load(trained)):
        assert "\n" not in repr(model) and len(repr(model)) < 200 and " parameters; " in repr(model)


def test_all_files_have_the_mode_of_the_users_other_files(served, tmp_path):
    (tmp_path / "other").touch()
    assert {file.stat().st_mode for file in served.iterdir()} == {(tmp_path / "other").stat().st_mode}


def test_what_the_folder_holds(trained, served):
    about = json.loads((served / "config.json").read_text())
    assert about["platforms"] == ["cpu", "cuda", "tpu"] and about["compared"]["difference"] == 0.0
    assert about["input"]["image_size"] == [16, 16] and about["input"]["transform"] == [["resize", {}]]
    assert about["outputs"] == {"attributes": {"probabilities": [None, 5]}, "embed": {"embedding": [None, 20]}}
    assert about["checkpoint"] == {"workdir": trained.name, "step": 7, "which": "ema", "vocabulary_hash": "abc"}
    assert json.loads((served / "labels.json").read_text())["label_names"] == tiny.INFO.label_names
    params, _, _ = checkpoints.load_params(trained / "checkpoints")
    found = exported.load(served).params
    assert jax.tree.structure(found) == jax.tree.structure(params)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(params), strict=True))


def test_the_raw_parameters_over_an_earlier_export_and_more_pictures_than_a_batch(trained, served, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(served, folder)
    export.run(trained, folder, which="params", platforms=("cpu",))
    about = json.loads((folder / "config.json").read_text())
    assert about["platforms"] == ["cpu"] and about["checkpoint"]["which"] == "params"
    many = [PICTURES[i % 5] for i in range(70)]  # 64 and 6
    found = exported.load(folder).embed(many)
    assert found.shape == (70, 20) and not np.array_equal(found[:5], exported.load(served).embed(list(PICTURES)))
    np.testing.assert_allclose(found[65:], found[:5], rtol=1e-5, atol=1e-6)


def test_refusals_name_the_file_and_the_remedy(trained, served, tmp_path, capsys):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("keep")
    with pytest.raises(SystemExit) as stopped:
        door.main(["export", f"--workdir={trained}", f"--out={tmp_path / 'letters'}"])
    assert stopped.value.code == 2 and "letters exists and is not an exported model" in capsys.readouterr().err
    assert (tmp_path / "letters" / "mine.txt").exists()
    with pytest.raises(InputError, match="there are steps 7"):
        export.run(trained, tmp_path / "new", step=3)
    with pytest.raises(InputError, match="letters holds no exported model"):
        exported.load(tmp_path / "letters")
    broken = tmp_path / "broken"
    shutil.copytree(served, broken)
    with (broken / "model.safetensors").open("r+b") as stream:
        stream.seek(-3, os.SEEK_END)
        stream.write(b"\x01\x02\x03")
    with pytest.raises(InputError, match="model.safetensors is missing or damaged"):
        exported.load(broken)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(served, elsewhere)
    about = json.loads((elsewhere / "config.json").read_text())
    (elsewhere / "config.json").write_text(json.dumps({**about, "platforms": ["tpu"]}))
    with pytest.raises(InputError, match="exported for tpu, this machine is cpu"):
        exported.load(elsewhere)
    model = exported.load(served)
    with pytest.raises(InputError, match="picture 1 is float32"):
        model.embed([PICTURES[0], PICTURES[0].astype(np.float32)])
    with pytest.raises(InputError, match=r"no program 'title' \(available: attributes, embed\)"):
        model.run("title", list(PICTURES))


def changed_copy(served, folder, change=None, parameters=None):
    """Copies an exported folder, changes its config.json and parameters, and makes the checksums right again."""
    shutil.copytree(served, folder)
    about = json.loads((folder / "config.json").read_text())
    if parameters is not None:
        tensors = safetensors.numpy.load_file(folder / "model.safetensors")
        safetensors.numpy.save_file(parameters(tensors), folder / "model.safetensors")
    for name in about["sha256"]:
        about["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    if change is not None:
        change(about)
    (folder / "config.json").write_text(json.dumps(about))
    return folder


def at(*path, value):
    def change(about):
        *above, last = path
        for key in above:
            about = about[key]
        about[last] = value

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (at("format", value="1"), "not that of an exported model"),
        (at("programs", value={}), r"length >= 1 - at `\$\.programs`"),
        (at("programs", "embed", value="../embed.jax_export"), r"at `\$\.programs"),
        (at("sha256", value={}), "model.safetensors is missing or damaged"),
        (at("platforms", value="cpu"), "Expected `array`"),
        (at("input", value=None), "Expected `object`, got `null`"),
        (at("input", "image_size", value=[16]), "Expected `array` of length >= 2"),
        (at("input", "image_size", value=[10**9, 10**9]), "more than 16,777,216 pixels"),
        (at("input", "transform", value=[["resize", {"size": 10**9}]]), "pictures cannot be prepared.*no argument"),
        (at("input", "transform", value=[["center_crop", {"crop_pct": 1e-9}]]), "pictures cannot be prepared.*share"),
        (at("input", "transform", value=[["resize", {"interpolation": {}}]]), "pictures cannot be prepared"),
        (at("input", "transform", value=[["os.system", {}]]), "no transform named"),
        (at("inputs", "embed", 0, "kind", value="file"), "Invalid enum value 'file'"),
        (at("inputs", "embed", 0, "dtype", value="float32"), "takes uint8.*where the folder has float32"),
        (at("inputs", "embed", 0, "shape", value=[None, 16, 17, 3]), "takes uint8.*where the folder has"),
        (at("inputs", "embed", 0, "shape", value=[None, 10**9, 10**9, 3]), "has the shape"),
        (at("inputs", "embed", 0, "shape", value=[4, 16, 16, 3]), "has the shape"),
        (lambda about: about["programs"].update(attributes="embed.jax_export"), "does not return 'probabilities'"),
    ],
)
def test_a_folder_that_does_not_fit_together_is_refused_before_it_is_run(served, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        exported.load(changed_copy(served, tmp_path / "changed", change))


@pytest.mark.parametrize(
    "parameters, message",
    [
        (lambda tensors: {**tensors, "extra": np.zeros(3)}, "takes other parameters"),
        (lambda tensors: {name: value[..., None] for name, value in tensors.items()}, "takes float32.*where"),
        (lambda tensors: {name: value.astype(np.float64) for name, value in tensors.items()}, "takes float32.*where"),
        (lambda tensors: {**tensors, f"{min(tensors)}/below": np.zeros(3)}, "cannot be in a tree with the others"),
        (lambda tensors: {**tensors, "a/" * 100 + "b": np.zeros(3)}, "cannot be in a tree"),
    ],
)
def test_parameters_of_another_network_are_refused(served, tmp_path, parameters, message):
    with pytest.raises(InputError, match=message):
        exported.load(changed_copy(served, tmp_path / "changed", parameters=parameters))


def test_a_program_that_wants_more_memory_than_there_is_is_not_run():
    (batch,) = jax.export.symbolic_shape("batch")

    def greedy(params, rows):
        return {"embedding": jax.numpy.sort(jax.numpy.ones((rows.shape[0], rows.shape[0] * 10**6 * 4)) * params)}

    rows = jax.ShapeDtypeStruct((batch, 2), np.float32)
    program = jax.export.export(jax.jit(greedy))(np.float32(1), rows)
    about = {"inputs": {"embed": [{"name": "row", "kind": "array", "dtype": "float32", "shape": [None, 2]}]}}
    model = exported.Model(about, {}, np.float32(1), {"embed": jax.jit(program.call)})
    with pytest.raises(InputError, match="needs [0-9.]+ GiB for 64 rows.*fewer rows"):
        model.embed({"row": np.zeros((64, 2), np.float32)})


@pytest.mark.parametrize("views", [(), (("flip", {}), ("five_crops", {}))], ids=["plain", "views"])
@pytest.mark.parametrize("name", eproduct.SMALL)
def test_every_backbone_is_lowered_for_all_platforms_and_any_number_of_pictures(name, views):
    config = base.defaults()
    config.train.model = ml_collections.ConfigDict(
        {
            "name": name,
            "variant": "lite0" if name == "efficientnet" else "micro",
            "projection": 0,
            "kwargs": eproduct.SMALL[name],
        }
    )
    config.data.image_size = (32, 32)
    task = inference.make_task(config, tiny.INFO)
    size = export.host_size(views, (32, 32))
    shapes = jax.eval_shape(task.init, jax.random.key(0), {"image": np.zeros((1, 32, 32, 3), np.uint8)})
    predict_fn = export.with_views(task.predict_fns["embed_image"], views, (32, 32))
    inputs = export.specs("embed", predict_fn, {"image": np.zeros((1, 32, 32, 3), np.uint8)}, size)
    program = export.lowered("embed", predict_fn, shapes, inputs, export.PLATFORMS)
    assert program.platforms == export.PLATFORMS and len(program.serialize()) > 1000
    (images,) = [value for value in program.in_avals if value.dtype == np.uint8]
    assert str(images.shape[0]) == "batch" and images.shape[1:] == (*size, 3)
    assert len(program.in_avals) == len(jax.tree.leaves(shapes)) + 1  # parameters are not baked in


def test_a_text_tower_is_exported_beside_the_pictures(tmp_path):
    folder, config = tmp_path / "run", tiny.tiny_config()
    with config.unlocked():
        config.train.task, config.search.query_from.predict_fn = "image_title", "embed_title"
        config.embed.views = (("flip", {}), ("five_crops", {}))
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(workdir.plain(config)))
    task = tasks.get("image_title").make(config.train, tiny.INFO)
    params = jax.jit(task.init)(jax.random.key(0), tiny.tiny_batch())
    store = checkpoints.Checkpoints(folder / "checkpoints")
    store.save(7, {"params": params, "ema": params}, {"vocabulary_hash": "abc", "num_steps": 7, "run": "r"})
    store.close()
    info_lib.save(folder / "checkpoints" / "data_info.json", tiny.INFO)
    with pytest.raises(InputError, match=r"batch\.json not found"):
        export.run(folder, tmp_path / "served", platforms=("cpu",))
    info_lib.save_batch(folder / "checkpoints" / "batch.json", tiny.tiny_batch())
    about = export.run(folder, tmp_path / "served", platforms=("cpu",))
    assert sorted(about["programs"]) == ["attributes", "embed", "embed_title"]
    assert about["compared"]["difference"] < 1e-6 and about["space"].endswith(":r/7/ema")
    assert about["inputs"]["embed_title"] == [
        {"name": "label_ids", "kind": "ragged", "dtype": "int32", "shape": [None, None]},
        {"name": "label_ids_mask", "kind": "mask", "dtype": "bool", "shape": [None, None]},
    ]
    assert about["inputs"]["embed"][0]["shape"] == [None, 18, 18, 3]  # views are cut from a larger picture
    assert about["inputs"]["attributes"][0]["shape"] == [None, 16, 16, 3]
    served, model = exported.load(tmp_path / "served"), inference.load(folder)
    titles = [[0, 4], [], [1, 2, 3, 0, 4], [2]]
    found = served.embed({"label_ids": titles}, "embed_title")
    wanted = model.embed({"label_ids": Ragged.of(titles)}, "embed_title")
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert served.predict_attributes(list(PICTURES), 2)[0][0][0] in tiny.INFO.label_names
    for inputs, words in (
        (list(PICTURES), "takes 'label_ids'.*image"),
        ({"label_ids": []}, "at least one row"),
    ):
        with pytest.raises(InputError, match=words):
            served.run("embed_title", inputs)


@pytest.mark.parametrize("masked", [False, True])
def test_columns_of_every_kind_are_exported(masked):
    def predict_fn(params, batch):
        seen = batch["set"].astype("float32").mean((2, 3, 4)) * batch["set_mask"]
        told = (batch["words"] * batch["words_mask"]).sum(1)[:, None] + batch["price"] * params
        assert ("image_mask" in batch) == masked
        return {"embedding": jax.numpy.concatenate([seen, told], 1), "space": "s"}

    predict_fn = tasks.Predict(predict_fn, ("set", "words", "price", "image"))
    batch = {
        "image": np.zeros((1, 4, 4, 3), np.uint8),
        "set": np.zeros((1, 2, 4, 4, 3), np.uint8),
        "set_mask": np.zeros((1, 2), bool),
        "words": np.zeros((1, 9), np.int32),
        "words_mask": np.zeros((1, 9), bool),
        "price": np.zeros((1, 1), np.float32),
    } | ({"image_mask": np.zeros(1, bool)} if masked else {})
    inputs = export.specs("embed", predict_fn, batch, (4, 4))
    program = export.lowered("embed", predict_fn, np.float32(2), inputs, ("cpu",))
    about = {"inputs": {"embed": inputs}, "input": {"transform": [["resize", {}]], "image_size": [4, 4]}}
    model = exported.Model(about, {}, np.float32(2), {"embed": jax.jit(program.call)})
    white, black = np.full((4, 4, 3), 255, np.uint8), np.zeros((4, 4, 3), np.uint8)
    columns = {
        "image": [black] * 3,
        "set": [[white, black], [white], []],
        "words": [[1, 2, 3], [], [7]],
        "price": np.array([[0.5], [1], [2]], np.float32),
    }
    assert model.run("embed", columns)["embedding"].tolist() == [[255, 0, 7], [255, 0, 2], [0, 0, 11]]
    with pytest.raises(InputError, match=r"as many of every column: set 3, words 3, price 2, image 3"):
        model.run("embed", {**columns, "price": columns["price"][:2]})
    with pytest.raises(
        InputError, match="the program embed reads the column 'words', which the batches .* did you mean"
    ):
        export.specs("embed", predict_fn, {"set": batch["set"], "word": batch["words"]}, (4, 4))
