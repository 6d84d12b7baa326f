"""Reads records of datasets prepared by tensorflow-datasets (tfds), ArrayRecord or Parquet, and their pictures."""

from __future__ import annotations

import pathlib
import threading
from typing import Any

import numpy as np

from retrieval_jax import errors
from retrieval_jax.data.pictures import decoding
from retrieval_jax.data.pictures.decoding import MAX_PIXELS, BadImage
from retrieval_jax.data.records import folders
from retrieval_jax.errors import InputError, first_line


class RecordImages:
    """Random access to the encoded pictures in the records of a tfds split, from several threads and processes.

    Files are opened at the first read, and again in every process that this object is pickled to.

    Args:
      folder: of the dataset, the one with dataset_info.json.
      split: name of the split in the dataset.
      rows: int [n], the records to read by their place in the split.
      column: of the pictures.
      numbers: int [n], the values that the records must have in their column "row", or None.
      max_pixels, at_least: see `sources.FileImages`.
    """

    def __init__(
        self,
        folder: Any,
        split: str,
        rows: np.ndarray,
        column: str = "image",
        numbers: np.ndarray | None = None,
        max_pixels: int = MAX_PIXELS,
        at_least: int | None = None,
    ):
        self.folder, self.split, self.column = str(folder), split, column
        self.rows, self.numbers = np.asarray(rows, np.int64), numbers
        self.max_pixels, self.at_least = max_pixels, at_least
        self._lock, self._records = threading.Lock(), None

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_lock": None, "_records": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> np.ndarray:
        """Returns uint8 [H, W, 3] RGB; raises InputError, naming the record, when it cannot be read or decoded."""
        return self.decode(self.read(row), row)

    def read(self, row: int) -> bytes:
        """Returns the encoded picture of a row; raises InputError, naming the record, if it has none."""
        with self._lock:
            if self._records is None:
                self._records = open_records(self.folder, self.split)
        try:
            fields = parse(self._records[int(self.rows[row])])
        except Exception as error:  # a damaged file can raise anything
            errors.raise_shortage(error, self._name(row))
            raise InputError(
                f"{self._name(row)} cannot be read ({first_line(error)}); prepare the dataset again, or "
                "copy its files again"
            ) from error
        if self.numbers is not None and fields["row"].int64_list.value[:] != [self.numbers[row]]:
            raise InputError(
                f"{self._name(row)} is not the listing of row {self.numbers[row]}: "
                "records and listings are from different preparations; prepare it again"
            )
        values = fields[self.column].bytes_list.value if self.column in fields else ()
        if len(values) != 1:
            raise InputError(
                f"{self._name(row)} has no encoded picture in its column {self.column!r}; prepare the "
                "dataset again, or map another column in config.data.kwargs.columns"
            )
        return values[0]

    def decode(self, data: bytes, row: int) -> np.ndarray:
        """Returns the picture, uint8 [H, W, 3], whose bytes `read` returned; raises InputError, naming the record."""
        try:
            return decoding.decode(data, self.max_pixels, self.at_least)
        except BadImage as error:
            raise InputError(f"row {row} of the pictures: {error.sentence(self._name(row))}") from None
        except (MemoryError, OSError) as error:
            errors.raise_shortage(error, self._name(row))
            raise

    def _name(self, row: int) -> str:
        return f"record {self.rows[row]} of the split {self.split} in {self.folder}"


def parse(record: bytes) -> Any:
    """Returns the columns of a serialized record: name -> protobuf Feature with int64_list, float_list, bytes_list.

    Raises:
      ValueError: the record is empty, which is how array_record returns those of a truncated file.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    if not record:
        raise ValueError("it is empty: the file is damaged")
    return tf_example_pb2.Example.FromString(record).features.feature


def in_fixed_order(record: bytes) -> bytes:
    """Returns a serialized record with its columns in a fixed order, which protobuf does not keep between processes."""
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString(record).SerializeToString(deterministic=True)


def open_records(folder: str, split: str) -> Any:
    """Opens a whole split of a dataset.

    Args:
      folder: of the dataset.
      split: its name in the dataset, not a slice.

    Returns:
      Random access to the serialized records. ArrayRecord is read record by record; Parquet, which cannot be, is
      held in memory.

    Raises:
      InputError: the files are not in a format with random access, or some are missing.
    """
    import tensorflow_datasets as tfds

    info = dataset(folder).info
    if split not in info.splits:
        raise InputError(f"{folder} has no split {split!r}; it has {', '.join(info.splits)}: prepare it again")
    folders.check_shards(info, split)
    readable = [name for name in _formats(info) if name in ("array_record", "parquet")]
    try:
        return tfds.builder_from_directory(folder, readable[0]).as_data_source(
            split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
    except (OSError, ValueError, RuntimeError) as error:
        errors.raise_shortage(error, f"{folder}: the split {split}")
        raise InputError(
            f"{folder}: the split {split} cannot be opened ({first_line(error)}); prepare it again, or "
            "copy its files again"
        ) from error


def dataset(folder: Any) -> Any:
    """Returns the tfds builder of a dataset's folder.

    Args:
      folder: the one with dataset_info.json and features.json, such as mnist/3.0.1.

    Raises:
      InputError: it is missing, broken, or in a format without random access.
    """
    import tensorflow_datasets as tfds

    folder = pathlib.Path(folder)
    if not (folder / "dataset_info.json").is_file():
        raise InputError(
            f"{folder} has no dataset_info.json: give the folder of a prepared dataset, such as "
            "tensorflow_datasets/stanford_online_products/1.0.0"
        )
    folders.check(folder)  # before tfds sees the folder: it would import whatever module is named there
    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:  # protobuf, JSON, features of a Python module that is not there ...
        raise InputError(
            f"{folder}: not a dataset that tfds can describe ({first_line(error)}); prepare it again "
            "with tensorflow-datasets 4 or later"
        ) from error
    if not {"array_record", "parquet"} & set(_formats(builder.info)):
        name = builder.info.name
        raise InputError(
            f"{folder} is in the format {', '.join(_formats(builder.info))}, whose records cannot be read one by one "
            f"without TensorFlow; prepare it again with `tfds build {name} --file_format=array_record`, or convert it "
            f"with `tfds convert_format --dataset_version_dir={folder} --out_file_format=array_record` (in an "
            "environment that has TensorFlow)"
        )
    return builder


def _formats(info: Any) -> list[str]:
    found = [info.file_format, *info.alternative_file_formats]
    return [one.value for one in found if one is not None] or ["unknown"]
