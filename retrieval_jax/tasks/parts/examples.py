"""Examples of tasks that learn from single listings: their pictures, mined labels and categories."""

import numpy as np

from retrieval_jax import pairs
from retrieval_jax.attributes import clusters
from retrieval_jax.attributes.vocabulary import Vocabulary, load_targets
from retrieval_jax.data import info as info_lib
from retrieval_jax.data.examples import Examples, Pictures, Ragged
from retrieval_jax.data.pictures import sources
from retrieval_jax.errors import InputError
from retrieval_jax.tasks.parts import degenerate


def listings(config, catalog, workdir) -> tuple[Examples, info_lib.DataInfo]:
    """Returns one example per listing of the train split.

    Columns: "image"; "image_view1" ... for config.train.views; "label_ids", the mined labels of titles, where the split
    has titles; "category", the leaf or the pseudo-product (config.train.task_kwargs.category_labels); "source", the
    catalogue that a listing is from, where several are joined; and the split's own column that
    config.train.sampling_kwargs.by names. Beside them "unlabelled", the pictures of config.train.unlabelled.

    Args:
      config: the whole config.
      catalog: `data.catalog.Catalog`.
      workdir: the work directory, with mined attributes.

    Returns:
      (Examples, DataInfo).

    Raises:
      InputError: nothing was mined there, or from another catalogue; or labels that teach nothing.
    """
    settings, split = config.train, catalog.split("train")
    images = sources.kept(split.images, config.data.cache_bytes)
    columns = {"image": Pictures(images)}
    for number, view in enumerate(settings.views, 1):
        columns[f"image_view{number}"] = _view(number, view, images)
    vocabulary = None
    if split.titles is not None:
        vocabulary, columns["label_ids"] = mined(workdir, len(split))
    info = info_lib.of_split(split, vocabulary)
    if settings.task_kwargs.get("category_labels") == "clusters":
        columns["category"], info = clusters.as_categories(workdir / "attributes" / "clusters.npz", len(split), info)
    elif split.categories is not None:
        columns["category"] = split.categories[:, -1]
    if split.sources is not None:
        columns["source"] = split.sources
    by = dict(settings.sampling_kwargs).get("by", "")
    if by in split.columns and by not in columns:
        columns[by] = split.columns[by]
    examples = Examples(columns, split.ids, unlabelled(config, catalog))
    degenerate.check(settings, examples, info)
    return examples, info


def unlabelled(config, catalog) -> dict[str, Examples]:
    """Returns {"unlabelled": the pictures of config.train.unlabelled.split}, or {} where it names no split."""
    block = config.train.unlabelled
    if not block.split:
        return {}
    split = catalog.split(block.split)
    if not len(split):
        raise InputError(f"config.train.unlabelled.split: the split {block.split} has no pictures")
    pictures = Pictures(sources.kept(split.images, config.data.cache_bytes), transforms=block.transforms)
    return {"unlabelled": Examples({"image": pictures}, split.ids, batch_size=block.batch_size)}


def mined(workdir, num_rows: int) -> tuple[Vocabulary, Ragged]:
    """Returns the vocabulary that mine wrote, and the labels of the train split's titles.

    Args:
      workdir: the work directory.
      num_rows: listings of the train split.

    Raises:
      InputError: nothing was mined there, or from another catalogue.
    """
    folder = workdir / "attributes"
    if not (folder / "vocabulary.json").exists():
        raise InputError(
            f"{folder} holds no mined attributes: run `retrieval-jax mine` with the same --config and --workdir first"
        )
    vocabulary = Vocabulary.load(folder / "vocabulary.json")
    indptr, label_ids = load_targets(folder / "train.npz", vocabulary.hash)
    if len(indptr) != num_rows + 1:
        raise InputError(
            f"{folder}/train.npz has {len(indptr) - 1} rows, the train split {num_rows}: run mine again in another "
            "--workdir"
        )
    return vocabulary, Ragged(indptr, np.asarray(label_ids, np.int32))


def _view(number: int, view, images) -> Pictures:
    view, where = dict(view), "config.train.views"
    pairs.check_arguments(str(number), view, ("transforms", "image_size"), where, "view")
    if "transforms" not in view:
        raise InputError(f"{where}: view {number} lacks transforms; write {{'transforms': ..., 'image_size': ...}}")
    size = view.get("image_size")
    return Pictures(images, transforms=view["transforms"], image_size=None if size is None else tuple(size))
