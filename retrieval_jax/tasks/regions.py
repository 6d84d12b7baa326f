"""Learns where the products of a picture are, and of what type: boxes from the column "box" of its listings.

Pictures are mirrored and cropped on the device, together with their boxes; the transforms on the host may therefore
change colours only.
"""

import jax
import jax.numpy as jnp

from retrieval_jax.data import fields as fields_lib
from retrieval_jax.data import regions
from retrieval_jax.data.examples import Examples, Pictures
from retrieval_jax.data.pictures import sources
from retrieval_jax.errors import InputError
from retrieval_jax.losses import boxes as losses
from retrieval_jax.losses import multilabel
from retrieval_jax.models import roi
from retrieval_jax.tasks import Predict, Task, parts

OPTIONS = {
    "types": "category",
    "group": "",
    "min_count": 5,
    "dims": 96,
    "smallest_crop": 0.7,
    "box_weight": 2.0,
    "type_weight": 1.0,
    "boxes": 50,
}
COLOUR_ONLY = ("resize", "color_jitter", "erasing")
_LEAST_VISIBLE = 0.4  # share of a box that a crop has to keep, or the box is not learned from


def examples(config, catalog, workdir):
    """Returns one example per picture of the train split that has a box.

    Columns: "image"; "boxes" [B, M, 4], NaN past the last; "box_types" int [B, M], -1 where unknown.

    Args:
      config: the whole config.
      catalog: `data.catalog.Catalog`, whose train split has the column "box".
      workdir: not used.

    Returns:
      (Examples, DataInfo), whose labels are the types.

    Raises:
      InputError: no boxes, no such field of types, or transforms that would move a picture away from its boxes.
    """
    del workdir
    options, split = parts.options(config.train, OPTIONS), catalog.split("train")
    moving = [name for name, _ in config.train.transforms if name not in COLOUR_ONLY]
    if moving:
        raise InputError(
            f"config.train.transforms: {moving[0]!r} moves pictures and leaves their boxes behind; the task 'regions' "
            f"mirrors and crops by itself (smallest_crop), so list only {', '.join(COLOUR_ONLY)}"
        )
    types = fields_lib.read(split, options["types"])
    info = fields_lib.learned({options["types"]: types}, options["min_count"], (), 0)
    found = regions.of_split(split, types, info, options["group"])
    if not len(found.rows):
        raise InputError(f"none of the {len(split):,} listings of the train split has a box")
    images = sources.kept(split.images, config.data.cache_bytes)
    columns = {"image": Pictures(images, found.rows), "boxes": found.boxes, "box_types": found.types}
    return Examples(columns, [split.ids[int(row)] for row in found.rows]), info


def make(config, info) -> Task:
    """Builds the task.

    Args:
      config: the train block; the maps of `model.kwargs.pool_stages` are read, and the first gives the cells.
      info: `data.info.DataInfo` of `examples`.

    Returns:
      The Task. "regions" returns "boxes" [B, K, 4], "scores" [B, K] and "types" [B, K], see `models.roi.best`.

    Raises:
      InputError: unknown option, or a backbone without maps.
    """
    options = parts.options(config, OPTIONS)
    network = parts.network(config, {})
    head = roi.BoxHead(len(info.label_names), options["dims"])

    def visual(params):
        return {name: value for name, value in params.items() if name != "head_regions"}

    def maps_of(params, images, **kwargs):
        maps = network.apply(params, images, **kwargs)["maps"]
        if not maps:
            raise InputError(
                f"the task 'regions' reads a network's maps, which {config.model.name} does not return: set "
                "config.train.model.name to 'convnext' or 'efficientnet'"
            )
        return maps

    def init(rng, batch):
        params = network.init(rng, batch)
        shapes = jax.eval_shape(maps_of, params, batch["image"][:1])
        zeros = [jnp.zeros(shape.shape, jnp.float32) for shape in shapes]
        return {**params, "head_regions": head.init({"params": jax.random.fold_in(rng, 1)}, zeros)["params"]}

    def loss_fn(params, batch, *, rng, step, ema, constants, train):
        del step, ema, constants
        images, boxes = batch["image"], batch["boxes"]
        dropout, moving = jax.random.split(rng)
        if train:
            images, boxes = moved(moving, images, boxes, options["smallest_crop"])
        maps = maps_of(visual(params), images, train=train, rngs={"dropout": dropout})
        out = head.apply({"params": params["head_regions"]}, maps)
        own = roi.assign(roi.cells(*maps[0].shape[1:3]), boxes)
        positive = (own >= 0) & batch["_mask"][:, None]
        place = jnp.maximum(own, 0)
        targets = jnp.take_along_axis(jnp.nan_to_num(boxes), place[..., None], axis=1)
        types = jnp.where(positive, jnp.take_along_axis(batch["box_types"], place, axis=1), -1)
        whole = batch.get("_whole", batch)
        rows = jnp.maximum(whole["_mask"].sum(), 1)
        # per picture, so that one with many things does not outweigh the others
        share = positive / jnp.maximum(positive.sum(1, keepdims=True), 1)
        there = (losses.focal(out["objectness"], positive) / jnp.maximum(positive.sum(1), 1)) * batch["_mask"]
        flat = multilabel.softmax_cross_entropy(out["types"].reshape(-1, len(info.label_names)), types.reshape(-1))
        values = {
            "object_loss": there.sum() / rows,
            "box_loss": (share * (1 - losses.giou(out["boxes"], targets))).sum() / rows,
            "type_loss": (share * flat.reshape(types.shape)).sum() / rows,
        }
        total = values["object_loss"] + options["box_weight"] * values["box_loss"]
        return total + options["type_weight"] * values["type_loss"], values

    def found(params, batch):
        out = head.apply({"params": params["head_regions"]}, maps_of(visual(params), batch["image"]))
        return roi.best(out, options["boxes"])

    def embed_image(params, batch):
        return network.embed_image(visual(params), batch)

    predict_fns = {"embed_image": Predict(embed_image), "regions": Predict(found)}
    return Task(init, loss_fn, predict_fns, network.space, warm_start=network.warm_start)


def moved(rng, images, boxes, smallest):
    """Mirrors half of the pictures and crops all of them, boxes included.

    Args:
      rng: key.
      images: [B, H, W, 3].
      boxes: [B, M, 4].
      smallest: side of the smallest crop as a share of the picture's; 1 for no crops.

    Returns:
      The pictures, float32, and boxes [B, M, 4], NaN for those that the crop cuts off.
    """
    count, height, width = images.shape[:3]
    images = images.astype(jnp.float32)
    flip_rng, side_rng, place_rng = jax.random.split(rng, 3)
    flips = jax.random.bernoulli(flip_rng, 0.5, (count,))
    images = jnp.where(flips[:, None, None, None], images[:, :, ::-1], images)
    mirrored = jnp.stack([boxes[..., 0], 1 - boxes[..., 3], boxes[..., 2], 1 - boxes[..., 1]], axis=-1)
    boxes = jnp.where(flips[:, None, None], mirrored, boxes)
    if smallest >= 1:
        return images, boxes
    sides = jax.random.uniform(side_rng, (count, 2), minval=smallest, maxval=1.0)
    low = jax.random.uniform(place_rng, (count, 2)) * (1 - sides)
    size = jnp.asarray([height, width], jnp.float32)

    def crop(image, side, low):
        return jax.image.scale_and_translate(
            image, image.shape, (0, 1), 1 / side, -low * size / side, "linear", antialias=False
        )

    images = jax.vmap(crop)(images, sides, low)
    before = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    new = (boxes - jnp.tile(low, 2)[:, None]) / jnp.tile(sides, 2)[:, None]
    clipped = jnp.clip(new, 0, 1)
    visible = (clipped[..., 2:] - clipped[..., :2]).prod(-1) * sides.prod(-1)[:, None] / jnp.maximum(before, 1e-9)
    return images, jnp.where((visible >= _LEAST_VISIBLE)[..., None], clipped, jnp.nan)
