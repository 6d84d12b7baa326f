"""Valid folders for fuzz_folders.py that take a library each: a prepared catalogue, an exported and a trained model."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

import tiny


def prepared(folder):
    """Writes a prepared catalogue of 12 listings per split."""
    from retrieval_jax import prepare

    config = tiny.tiny_config()
    config.data.kwargs.update({"num_train": 12, "num_val": 4, "num_query": 4, "num_gallery": 8})
    prepare.run(config, folder, processes=1)


def exported(folder):
    """Writes an exported model of one layer, for pictures of 8 x 8."""
    from retrieval_jax import exported

    def program(name):
        def function(params, images):
            pixels = images.reshape(images.shape[0], -1).astype(jnp.float32) / 255
            return {name: jax.nn.gelu(pixels @ params["dense"]["kernel"] + params["dense"]["bias"], approximate=False)}

        (batch,) = export.symbolic_shape("batch")
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
        pictures = jax.ShapeDtypeStruct((batch, 8, 8, 3), np.uint8)
        return export.export(jax.jit(function), platforms=("cpu",))(shapes, pictures)

    params = {"dense": {"kernel": np.ones((192, 3), np.float32), "bias": np.zeros(3, np.float32)}}
    specs = [{"name": "image", "kind": "pictures", "dtype": "uint8", "shape": [None, 8, 8, 3]}]
    about = {
        "input": {"image_size": [8, 8], "transform": [["resize", {}]]},
        "inputs": {"embed": specs, "attributes": specs},
        "versions": {"jax": jax.__version__},
        "space": "a",
    }
    programs = {"embed": program("embedding"), "attributes": program("probabilities")}
    folder.mkdir(exist_ok=True)
    exported.save(folder, params, programs, {"label_names": ["a", "b", "c"], "vocabulary_hash": "0"}, about)


def trained(folder):
    """Writes a work directory with a checkpoint of random parameters."""
    from retrieval_jax import tasks, workdir
    from retrieval_jax.data import info
    from retrieval_jax.models.backbones import convnext
    from retrieval_jax.training import checkpoints

    convnext.VARIANTS["tiny test"] = tiny.TINY
    config = tiny.tiny_config()
    workdir.write_settings(config, folder)
    task = tasks.get("multilabel").make(config.train, tiny.INFO)
    params = jax.jit(task.init)(jax.random.key(0), tiny.tiny_batch())
    store = checkpoints.Checkpoints(folder / "checkpoints")
    store.save(7, {"params": params, "ema": params}, {"vocabulary_hash": "abc", "num_steps": 7, "run": "r"})
    store.close()
    info.save(folder / "checkpoints" / "data_info.json", tiny.INFO)
    info.save_batch(folder / "checkpoints" / "batch.json", tiny.tiny_batch())
