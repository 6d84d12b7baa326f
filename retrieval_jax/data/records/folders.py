"""Checks the description of a tfds dataset before tfds reads it: what it may import, allocate and name.

tfds trusts its own files: it imports the module of every class that features.json names (whose code then runs), formats
the names of the record files with a template from dataset_info.json, and lists the classes of a label by their number.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import Any

from retrieval_jax.errors import InputError, short
from retrieval_jax.files import documents, opening

MOST_BYTES = 64 << 20  # of a description or a list of labels
_MOST_CLASSES = 1_000_000  # of a label: tfds makes a list of their names
_CLASSES = {
    f"tensorflow_datasets.core.features.{name}"
    for name in (
        "audio_feature.Audio",
        "bounding_boxes.BBoxFeature",
        "class_label_feature.ClassLabel",
        "dataset_feature.Dataset",
        "features_dict.FeaturesDict",
        "image_feature.Image",
        "labeled_image.LabeledImage",
        "scalar.Scalar",
        "sequence_feature.Sequence",
        "tensor_feature.Tensor",
        "text_feature.Text",
        "translation_feature.Translation",
        "translation_feature.TranslationVariableLanguages",
        "video_feature.Video",
    )
}
# Variables of tfds's template of file names. Python's format, which fills it in, would also read attributes ("{0.x}")
# and pad to any width ("{0:>9999999999}").
_TEMPLATE = r"(?:[\w.-]|\{(?:DATASET|SPLIT|FILEFORMAT|SHARD_INDEX|NUM_SHARDS|SHARD_X_OF_Y)\})+"
_REMEDY = "prepare the dataset again with tensorflow-datasets 4 or later"


def check(folder: pathlib.Path) -> None:
    """Checks the files from which tfds describes a dataset; imports, writes and allocates nothing for them.

    Args:
      folder: of the dataset, with dataset_info.json and features.json.

    Raises:
      InputError: a file is missing, damaged or not a regular file; or it names a class that tfds does not have, a path
        outside of the folder, or a number of classes or records that cannot be.
    """
    from google.protobuf import json_format
    from tensorflow_datasets.core.proto import dataset_info_pb2

    for entry in sorted(folder.iterdir()):
        if entry.suffix in (".json", ".txt"):
            opening.opened(entry, MOST_BYTES).close()
    file = folder / "features.json"
    for where, value in _features(file, documents.read(file, dict, remedy=_REMEDY, most_bytes=MOST_BYTES)):
        _check_feature(f"{file}{where}", value)
    file = folder / "dataset_info.json"
    content = documents.read(file, dict, remedy=_REMEDY, most_bytes=MOST_BYTES)
    try:
        info = json_format.ParseDict(content, dataset_info_pb2.DatasetInfo())
    except (json_format.ParseError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{file} does not describe a dataset ({short(str(error))}): {_REMEDY}") from error
    names = {"name": [info.name], "a split": [split.name for split in info.splits]}
    for what, given in names.items():
        for name in given:
            if not re.fullmatch(r"\w[\w.-]{0,200}", name):
                raise InputError(f"{file}: {what} is {short(name)!r}, which is not a plain name: {_REMEDY}")
    for split in info.splits:
        if split.filepath_template and not re.fullmatch(_TEMPLATE, split.filepath_template):
            raise InputError(
                f"{file}: the files of the split {split.name} are called {short(split.filepath_template)!r}, which is "
                f"not a template of names in this folder: {_REMEDY}"
            )
        wrong = [length for length in split.shard_lengths if length < 0]
        if wrong:
            raise InputError(f"{file}: a file of the split {split.name} has {wrong[0]} records: {_REMEDY}")


def check_shards(info: Any, split: str) -> None:
    """Checks that the files of a split are there and could hold as many records as their description says.

    Args:
      info: of the tfds builder.
      split: name of the split.

    Raises:
      InputError: a file is missing, is not a regular file, or is smaller than its number of records.
    """
    whole = info.splits[split]
    for path, records in zip(whole.filepaths, whole.shard_lengths, strict=True):
        try:
            opening.opened(path).close()
        except FileNotFoundError as error:
            raise InputError(f"{path} is missing; prepare the dataset again, or copy its files again") from error
        if pathlib.Path(path).stat().st_size < records:  # a record takes more than a byte
            raise InputError(
                f"{path} is too small for the {records:,} records that dataset_info.json announces; prepare the "
                "dataset again, or copy its files again"
            )


def _features(file: pathlib.Path, value: Any, where: str = "", within: int = 0) -> Iterator[tuple[str, dict]]:
    """Yields (where, object) of every object in a description of features, those in JSON inside of JSON included."""
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _features(file, item, f"{where}[{number}]", within)
    elif isinstance(value, dict):
        yield where, value
        for key, item in value.items():
            if key == "json" and isinstance(item, str):  # the content of features that have no message of their own
                if within:
                    raise InputError(f"{file}{where} holds JSON within JSON: {_REMEDY}")
                item = documents.parse(item, name=f"{file}{where}.json", remedy=_REMEDY)
                yield from _features(file, item, f"{where}.json", within + 1)
            else:
                yield from _features(file, item, f"{where}.{key}", within)


def _check_feature(where: str, value: dict) -> None:
    for key in ("pythonClassName", "python_class_name", "type"):
        # A column may be called "type": then its value is an object.
        if isinstance(name := value.get(key), str) and name not in _CLASSES:
            raise InputError(
                f"{short(where, 300)}: the column is of the class {short(name)!r}, which is not one of tfds's own "
                "features: reading it would run the code of its module. Prepare the dataset with the features of "
                "tensorflow_datasets.features"
            )
    for key in ("numClasses", "num_classes"):
        try:
            wrong = not isinstance(value.get(key), dict) and not 0 <= int(value.get(key) or 0) <= _MOST_CLASSES
        except (TypeError, ValueError, OverflowError):
            wrong = True
        if wrong:
            raise InputError(
                f"{short(where, 300)}: {key} is {short(repr(value[key]))}; a label has 0 to {_MOST_CLASSES:,} classes"
            )
    # Names of columns become names of files, <column>.labels.txt, where tfds replaces every slash.
    for key in ("features", "content"):
        for name in value[key] if isinstance(value.get(key), dict) else ():
            if not name or len(name) > 200 or re.search(r"[\x00-\x1f]", name):
                raise InputError(f"{short(where, 300)}: {short(name)!r} cannot be the name of a column: {_REMEDY}")
