"""What a stranger's dataset may not make tfds do."""

import json
import os
import pathlib
import shutil
import sys

import pytest
import tensorflow_datasets as tfds

import tfds_generated
from retrieval_jax.data.records import reading, tfds_datasets
from retrieval_jax.errors import InputError


class Shop(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A small dataset with nested features and a column called "type"."""

    name = "shop"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(),
                    "type": tfds.features.Text(),
                    "boxes": tfds.features.Sequence({"box": tfds.features.BBoxFeature()}),
                    "class": tfds.features.ClassLabel(num_classes=3),
                }
            )
        )

    def _split_generators(self, dl_manager):
        return {
            "train": [(n, {"image": tfds_generated.picture(n), "type": "a", "boxes": [], "class": 1}) for n in range(3)]
        }

    def _generate_examples(self):
        raise NotImplementedError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return tfds_generated.prepare(Shop, tmp_path_factory.mktemp("tfds"), "array_record")


@pytest.fixture
def folder(prepared, tmp_path):
    return pathlib.Path(shutil.copytree(prepared, tmp_path / "shop"))


def change(file: pathlib.Path, old: str, new: str):
    text = file.read_text()
    assert old in text, text
    file.write_text(text.replace(old, new))


def refused(folder, message):
    with pytest.raises(InputError, match=message) as found:
        reading.dataset(folder)
    assert str(folder) in str(found.value)


def test_tfds_own_features_are_read(folder):
    assert set(reading.dataset(folder).info.features) == {"image", "type", "boxes", "class"}
    assert len(reading.open_records(str(folder), "train")) == 3


def test_a_class_of_another_module_is_not_imported(folder, monkeypatch):
    (folder / "evil.py").write_text("raise SystemExit('the code of a stranger ran')")
    monkeypatch.syspath_prepend(folder)
    content = json.loads((folder / "features.json").read_text())
    features = content["featuresDict"]["features"]
    for where in (features["type"], features["boxes"], content):
        for key in ("pythonClassName", "python_class_name"):
            old = dict(where)
            where.pop("pythonClassName")
            where[key] = "evil.Text"
            (folder / "features.json").write_text(json.dumps(content))
            refused(folder, "is of the class 'evil.Text', which is not one of tfds's own features.*run the code")
            where.clear()
            where.update(old)
    assert "evil" not in sys.modules


def test_neither_is_one_that_hides_in_json_or_in_the_older_format(folder):
    own = "tensorflow_datasets.core.features"
    inner = {"a": {"type": "evil.Text", "content": {}}}
    for content in (
        {"pythonClassName": f"{own}.features_dict.FeaturesDict", "jsonFeature": {"json": json.dumps(inner)}},
        {"python_class_name": f"{own}.features_dict.FeaturesDict", "json_feature": {"json": json.dumps(inner)}},
        {"type": f"{own}.features_dict.FeaturesDict", "content": inner},
        {"type": "os.path", "content": {}},
    ):
        (folder / "features.json").write_text(json.dumps(content))
        refused(folder, "is of the class '(evil.Text|os.path)'")
    twice = '{"pythonClassName": "evil.Text", "pythonClassName": "' + own + '.text_feature.Text", "text": {}}'
    (folder / "features.json").write_text(twice)
    refused(folder, "the key 'pythonClassName' occurs twice")
    nested = {"jsonFeature": {"json": json.dumps({"x": {"json": "{}"}})}}
    (folder / "features.json").write_text(json.dumps(nested))
    refused(folder, "JSON within JSON")


@pytest.mark.parametrize(
    "file, old, new, message",
    [
        ("features.json", '"3"', '"1000000000000"', "numClasses is '1000000000000'"),
        ("features.json", '"3"', '"many"', "numClasses is 'many'"),
        ("features.json", '"class":', '"":', "cannot be the name of a column"),
        ("dataset_info.json", '"name": "shop"', '"name": "../shop"', "name is '../shop', which is not a plain name"),
        ("dataset_info.json", '"name": "train"', '"name": "../train"', "a split is '../train'"),
        ("dataset_info.json", "{DATASET}-", "../../{DATASET}-", "not a template of names in this folder"),
        ("dataset_info.json", "{DATASET}-", "{DATASET:>99999999999}-", "not a template of names in this folder"),
        ("dataset_info.json", "{DATASET}-", "{DATASET.__class__}-", "not a template of names in this folder"),
        ("dataset_info.json", '"3"', '"-3"', "has -3 records"),
        ("dataset_info.json", '"version"', '"vision"', "does not describe a dataset"),
        ("dataset_info.json", '"1.0.0"', '"one"', "not a dataset that tfds can describe"),
        ("dataset_info.json", '"1.0.0"', "[" * 100 + "]" * 100, "nested too deeply"),
    ],
)
def test_names_sizes_and_templates_are_checked(folder, file, old, new, message):
    change(folder / file, old, new)
    refused(folder, message)


def test_more_records_than_a_file_can_hold(folder):
    change(folder / "dataset_info.json", '"3"', '"1000000000000"')
    for load in (
        lambda: reading.open_records(str(folder), "train"),
        lambda: tfds_datasets.load_tfds(root=str(folder), splits={"train": "train"}),
    ):
        with pytest.raises(InputError, match="too small for the 1,000,000,000,000 records"):
            load()
    with pytest.raises(InputError, match="has no split 'val'; it has train"):
        reading.open_records(str(folder), "val")


@pytest.mark.parametrize("name", ["features.json", "class.labels.txt", "metadata.json"])
def test_what_is_not_a_file_is_not_opened(folder, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    refused(folder, "is a pipe")
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    refused(folder, "device")
