"""Published weights: names, files, errors for wrong ones, resampling, and round trips that are exact to the bit.

Longer than 400 lines: one test per kind of file that is accepted or refused.
"""

import json
import subprocess
import sys

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.flax
from safetensors.numpy import load_file, save_file

import reference
from retrieval_jax import models
from retrieval_jax.errors import InputError
from retrieval_jax.models import embedder, pretrained
from retrieval_jax.models.backbones import convnext, vit
from retrieval_jax.models.timm import checkpoints as timm_checkpoints
from retrieval_jax.models.timm import tensors as timm_tensors

CONVNEXT = {"depths": (1, 1, 2, 1), "dims": (8, 8, 12, 16)}
VIT = {"embed_dim": 12, "depth": 2, "num_heads": 3, "patch_size": 8}


def write(folder, name, *, seed=0, **kwargs):
    """Writes random weights of a model under timm's names; returns (file, {timm's name: tensor})."""
    model, rng = pretrained.model(name, **kwargs), np.random.default_rng(seed)
    shapes = pretrained.shapes_of(model, kwargs.get("img_size", 32))
    tensors = {
        name: np.abs(rng.normal(size=shape)).astype(np.float32)  # variances are positive
        if name.endswith("running_var")
        else rng.normal(size=shape).astype(np.float32)
        for name, shape in timm_tensors.timm_shapes(model, shapes).items()
    }
    save_file(tensors, folder / "model.safetensors")
    return folder / "model.safetensors", tensors


def equal(tree, other):
    return jax.tree.structure(tree) == jax.tree.structure(other) and jax.tree.all(
        jax.tree.map(np.array_equal, tree, other)
    )


# ---------------------------------------------------------------------------------------------------------------- names


def test_every_architecture_can_be_rebuilt_from_its_arguments():
    known = pretrained.architectures()
    assert {
        "convnext_xlarge",
        "convnextv2_huge",
        "vit_large_patch16_224",
        "vit_base_patch14_reg4_dinov2",
        "vit_so400m_patch14_siglip_384",
    } <= known.keys()
    for name, module in known.items():
        model = pretrained.model(name)
        assert isinstance(model, module.Model), name
        arguments = module.to_timm(model)
        assert module.to_timm(module.from_timm(**arguments)) == arguments, name


def test_the_twelve_published_models_map_completely():
    theirs = json.loads(reference.path("parity/timm_shapes.json").read_text())
    known = pretrained.architectures()
    assert len(theirs) == 12
    for name, spec in theirs.items():
        model = pretrained.model(name, **{"scan": True} if hasattr(known[name].Model, "scan") else {})
        shapes = pretrained.shapes_of(model, spec["input_size"][1:])
        wanted, fresh, left_out = timm_tensors.check(model, shapes, spec["params"])
        assert {entry.timm for entry in wanted} == spec["params"].keys() and not fresh and not left_out, name
        info = pretrained.info(name)
        assert [list(info.mean), list(info.std), info.interpolation, info.crop_pct, [3, *info.input_size]] == [
            spec[key] for key in ("mean", "std", "interpolation", "crop_pct", "input_size")
        ], name


def test_names_with_and_without_tag():
    assert pretrained.model("timm/convnext_xlarge.fb_in22k") == pretrained.model("convnext_xlarge")
    assert timm_checkpoints.default_tag("convnext_xlarge") == "fb_in22k_ft_in1k"
    assert pretrained.info("vit_base_patch16_224.dino").mean == (0.485, 0.456, 0.406)
    assert pretrained.info("vit_base_patch16_224").mean == (0.5, 0.5, 0.5)
    assert pretrained.info("convnextv2_huge").licence == "cc-by-nc-4.0"
    assert pretrained.info("convnext_xlarge.made_up").licence == ""
    with pytest.raises(InputError, match="no backbone for timm's 'convnext_xlarg'; did you mean convnext_xlarge"):
        pretrained.model("convnext_xlarg")


def test_arguments_of_timm_and_fields_of_ours():
    model = pretrained.model(
        "vit_base_patch16_224",
        img_size=(64, 32),
        embed_dim=48,
        num_heads=4,
        global_pool="avg",
        reg_tokens=2,
        drop_path=0.3,
        scan=True,
        num_classes=7,
        init_values=None,
    )
    assert (model.width, model.num_heads, model.depth, model.image_size) == (48, 4, 12, (64, 32))
    assert (model.pooling, model.norm, model.registers, model.drop_path, model.scan) == ("avg", "after", 2, 0.3, True)
    assert pretrained.model("convnext_tiny", drop_path_rate=0.1, pooling="gem").pooling == "gem"
    for name, kwargs, message in (
        (
            "convnext_tiny",
            {"layers": 3},
            "convnext_tiny: unknown argument 'layers'.*available: depths, .*pooling, ",
        ),
        ("vit_base_patch16_224", {"in_chans": 1}, "in_chans=1, but pictures have 3"),
        ("vit_base_patch16_224", {"qk_norm": True}, "with this qk_norm is not supported"),
        ("vit_base_patch16_224", {"global_pool": ""}, "with this global_pool is not supported"),
        ("vit_base_patch16_224", {"patch_size": (16, 8)}, "patches are square here"),
        ("convnext_tiny", {"head_norm_first": True, "output_stride": 8}, "this head_norm_first, output_stride"),
        ("convnext_tiny", {"act_layer": "mish"}, "unknown act_layer='mish'.*available: gelu"),
        ("convnext_tiny", {"stem_type": "deep"}, "unknown stem_type='deep'.*available: patch"),
    ):
        with pytest.raises(InputError, match=message):
            pretrained.model(name, **kwargs)


def test_torch_is_not_imported():
    code = "import retrieval_jax.models.pretrained, sys; assert not {'torch', 'timm'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


# ----------------------------------------------------------------------------------------------------------- load, save


@pytest.mark.parametrize(
    "name, kwargs, scan",
    [
        ("convnext_atto", CONVNEXT, True),
        ("convnextv2_base", CONVNEXT, False),
        ("convnext_nano_ols", CONVNEXT, False),
        ("vit_base_patch16_siglip_224", VIT, True),
        ("vit_small_patch14_reg4_dinov2", VIT, False),
        ("vit_base_patch16_clip_224", VIT | {"img_size": (16, 32)}, True),
    ],
)
def test_round_trips_are_exact(tmp_path, name, kwargs, scan):
    kwargs = {"img_size": 32, **kwargs} if name.startswith("vit") else kwargs
    file, tensors = write(tmp_path, name, **kwargs)
    model, params = pretrained.load(name, file, scan=scan, **kwargs)
    pretrained.save(model, params, tmp_path / "again" / "model.safetensors", timm_name=name)
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert again.keys() == tensors.keys() and all(np.array_equal(again[key], tensors[key]) for key in tensors)
    loaded, same = pretrained.load(name, tmp_path / "again", scan=scan)  # config.json holds the arguments
    assert loaded == model and equal(same, params)
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert config["architecture"] == name and config["pretrained_cfg"]["mean"] == list(pretrained.info(name).mean)


def test_tensors_that_timm_lacks_survive_the_round_trip(tmp_path, capsys):
    file, tensors = write(tmp_path, "convnext_atto", **CONVNEXT)
    model, params = pretrained.load("convnext_atto", file, pooling="gem", pool_stages=(2, 3), **CONVNEXT)
    assert "not in the file, initialised: head_norm_stage2/bias, head_norm_stage2/scale, pool/p, pool_stage2/p" in (
        capsys.readouterr().out
    )
    assert params["pool"]["p"] == 3.0 and np.array_equal(params["head_norm_stage2"]["scale"], np.ones(12))
    params["pool"]["p"] = np.float32(2.5)
    pretrained.save(model, params, tmp_path / "model.safetensors")
    assert load_file(tmp_path / "model.safetensors")["retrieval_jax.pool/p"] == 2.5
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] == "convnext_atto"
    loaded, same = pretrained.load("convnext_atto", tmp_path)
    assert loaded == model and equal(same, params) and "initialised" not in capsys.readouterr().out


def test_ignored_tensors_and_the_licence_are_printed(tmp_path, capsys):
    file, tensors = write(tmp_path, "vit_base_patch16_224", img_size=32, **VIT)
    extra = {
        "head.weight": np.zeros((5, 12), np.float32),
        "head.bias": np.zeros(5, np.float32),
        "pre_logits.fc.bias": np.zeros(3, np.float32),
    }
    save_file(tensors | extra, file)
    _, params = pretrained.load("vit_base_patch16_224.augreg_in21k", file, img_size=32, **VIT)
    out = capsys.readouterr().out
    assert "licence of the weights: apache-2.0; ignored: head.bias, head.weight, pre_logits.fc.bias" in out
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}


def test_half_precision_files_become_float32(tmp_path):
    file, tensors = write(tmp_path, "convnext_atto", **CONVNEXT)
    safetensors.flax.save_file({name: jnp.asarray(value, jnp.bfloat16) for name, value in tensors.items()}, file)
    _, params = pretrained.load("convnext_atto", file, **CONVNEXT)
    expected = np.asarray(jnp.asarray(tensors["stem.0.bias"], jnp.bfloat16), np.float32)
    assert params["stem"]["bias"].dtype == np.float32 and np.array_equal(params["stem"]["bias"], expected)


def test_an_attention_pool_may_be_ignored(tmp_path, capsys):
    file, _ = write(tmp_path, "vit_base_patch16_siglip_224", img_size=32, **VIT)
    pretrained.load("vit_base_patch16_siglip_224", file, img_size=32, global_pool="avg", fc_norm=False, **VIT)
    assert "ignored: attn_pool.kv.bias" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------------- wrong files


def test_one_message_lists_everything_that_is_wrong(tmp_path):
    file, tensors = write(tmp_path, "convnext_atto", **CONVNEXT)
    tensors["stem.2.weight"] = tensors.pop("stem.1.weight")
    tensors["head.norm.bias"] = np.zeros(17, np.float32)
    tensors["stages.0.blocks.0.conv_dw.weight"] = np.zeros((8, 8, 7, 7), np.float32)
    del tensors["stem.0.bias"]
    save_file(tensors, file)
    with pytest.raises(InputError) as caught:
        pretrained.load("convnext_atto", file, **CONVNEXT)
    for text in (
        str(file),
        "convnext ",
        "2 missing: stem.0.bias (8,); stem.1.weight (8,)",
        "1 unexpected: stem.2.weight (8,)",
        "2 with another shape: ",
        "head.norm.bias (17,), expected (16,)",
        "conv_dw.weight (8, 8, 7, 7), expected (8, 1, 7, 7)",
    ):
        assert text in str(caught.value)


@pytest.mark.parametrize("prefix", ["model.", "module.", "visual.", "student.backbone.", "module._orig_mod.model."])
def test_a_prefix_of_all_names_is_recognised(tmp_path, capsys, prefix):
    file, tensors = write(tmp_path, "convnext_atto", **CONVNEXT)
    _, expected = pretrained.load("convnext_atto", file, **CONVNEXT)
    other = {f"text.{name}": np.zeros(3, np.float32) for name in ("stem.0.bias", "positions")}
    head = {f"{prefix}head.fc.weight": np.zeros((5, 16), np.float32), "logit_scale": np.zeros(1, np.float32)}
    save_file({f"{prefix}{name}": tensor for name, tensor in tensors.items()} | other | head, file)
    capsys.readouterr()
    _, params = pretrained.load("convnext_atto", file, **CONVNEXT)
    assert equal(params, expected)
    printed = capsys.readouterr().out
    assert f"where their names begin with {prefix!r}" in printed and "ignored: head.fc.weight, " in printed
    assert "logit_scale" in printed and "text.positions" in printed


def test_a_file_with_the_model_under_two_prefixes_is_ambiguous(tmp_path):
    file, tensors = write(tmp_path, "convnext_atto", **CONVNEXT)
    save_file({f"{each}.{name}": tensor for name, tensor in tensors.items() for each in ("student", "teacher")}, file)
    with pytest.raises(InputError, match="holds this model 2 times, under 'student.' and 'teacher.'"):
        pretrained.load("convnext_atto", file, **CONVNEXT)
    save_file({**tensors, **{f"ema.{name}": tensor for name, tensor in tensors.items()}}, file)
    with pytest.raises(InputError, match="unexpected: ema."):  # a file without a prefix is read as it was
        pretrained.load("convnext_atto", file, **CONVNEXT)


def test_a_near_miss_names_the_prefix(tmp_path):
    file, tensors = write(tmp_path, "convnext_atto", **CONVNEXT)
    del tensors["stem.0.bias"]
    save_file({f"module.{name}": tensor for name, tensor in tensors.items()}, file)
    with pytest.raises(InputError) as caught:
        pretrained.load("convnext_atto", file, **CONVNEXT)
    assert "behind the prefix 'module.', does not hold" in str(caught.value)
    assert "1 missing: stem.0.bias (8,). Give" in str(caught.value)
    save_file({f"vit.encoder.{number}.weight": np.zeros(3, np.float32) for number in range(3)}, file)
    with pytest.raises(InputError, match="All names in the file begin with 'vit.encoder.'"):
        pretrained.load("convnext_atto", file, **CONVNEXT)
    with pytest.raises(InputError) as caught:  # no prefix to report
        save_file({"a.weight": np.zeros(3, np.float32), "b.weight": np.zeros(3, np.float32)}, file)
        pretrained.load("convnext_atto", file, **CONVNEXT)
    assert "begin" not in str(caught.value) and "prefix" not in str(caught.value)


def test_wrong_paths_and_broken_files(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    for path, message in (
        ("absent.safetensors", "does not exist"),
        (".", "model.safetensors does not exist"),
        ("pytorch_model.bin", "is not a safetensors file; .* can run code"),
        ("broken.safetensors", "cannot be read as safetensors"),
    ):
        with pytest.raises(InputError, match=message):
            pretrained.load("convnext_atto", tmp_path / path)
    file, _ = write(tmp_path, "convnext_atto", **CONVNEXT)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="config.json is not readable JSON"):
        pretrained.load("convnext_atto", file, **CONVNEXT)


def test_parameters_of_another_model_are_not_saved(tmp_path):
    file, _ = write(tmp_path, "convnext_atto", **CONVNEXT)
    model, params = pretrained.load("convnext_atto", file, **CONVNEXT)
    del params["head_norm"]
    with pytest.raises(InputError, match="2 missing: head.norm.bias"):
        pretrained.save(model, params, tmp_path / "other.safetensors")
    assert not (tmp_path / "other.safetensors").exists()


# ------------------------------------------------------------------------------------------------------- picture sizes


def test_positions_are_resampled_to_the_requested_size(tmp_path):
    file, tensors = write(tmp_path, "vit_small_patch14_reg4_dinov2", img_size=32, **VIT)
    _, params = pretrained.load("vit_small_patch14_reg4_dinov2", file, img_size=(48, 24), **VIT)
    expected = vit.resample_positions(tensors["pos_embed"], (4, 4), (6, 3), 0)
    np.testing.assert_allclose(params["positions"], expected, atol=1e-6)
    np.testing.assert_array_equal(params["registers"], tensors["reg_token"])
    # The same number of patches in another shape, which config.json records. Without it, the table is used unchanged,
    # as in timm.
    pretrained.save(
        *pretrained.load("vit_small_patch14_reg4_dinov2", file, img_size=(64, 16), **VIT),
        tmp_path / "wide" / "model.safetensors",
    )
    model, params = pretrained.load("vit_small_patch14_reg4_dinov2", tmp_path / "wide", img_size=32)
    assert model.image_size == 32 and params["positions"].shape == (1, 16, 12)
    expected = vit.resample_positions(tensors["pos_embed"], (8, 2), (4, 4), 0)
    np.testing.assert_allclose(params["positions"], expected, atol=1e-5)


@pytest.mark.parametrize(
    "name, kwargs",
    [
        ("vit_small_patch16_224", VIT | {"patch_size": 16}),
        ("beit_base_patch16_224", VIT | {"patch_size": 16, "use_abs_pos_emb": True}),
        ("beit_base_patch16_224", VIT | {"patch_size": 16, "use_abs_pos_emb": True, "use_rel_pos_bias": False}),
    ],
)
@pytest.mark.parametrize("img_size", [32, (48, 80), (112, 448)])
def test_without_config_json_a_file_is_assumed_to_have_the_requested_size(tmp_path, name, kwargs, img_size):
    # (112, 448) has as many patches as the architecture's own (224, 224).
    file, tensors = write(tmp_path, name, img_size=img_size, **kwargs)
    _, params = pretrained.load(name, file, img_size=img_size, **kwargs)
    np.testing.assert_array_equal(params["positions"], tensors["pos_embed"])


def test_positions_of_a_beit_for_another_size_are_assumed_square(tmp_path):
    kwargs = VIT | {"use_abs_pos_emb": True}
    file, tensors = write(tmp_path, "beit_base_patch16_224", img_size=32, **kwargs)
    _, params = pretrained.load("beit_base_patch16_224", file, img_size=(48, 24), **kwargs)
    expected = vit.resample_positions(tensors["pos_embed"], (4, 4), (6, 3), 1)
    np.testing.assert_allclose(params["positions"], expected, atol=1e-6)


def test_a_table_that_is_not_square_is_reported_as_another_shape(tmp_path):
    file, tensors = write(tmp_path, "vit_base_patch16_224", img_size=32, **VIT)
    tensors["pos_embed"] = tensors["pos_embed"][:, :15]
    save_file(tensors, file)
    with pytest.raises(InputError, match=r"1 with another shape: pos_embed \(1, 15, 12\), expected \(1, 17, 12\)"):
        pretrained.load("vit_base_patch16_224", file, img_size=32, **VIT)


# -------------------------------------------------------------------------------------------------------------- the hub


def test_training_from_a_file_builds_the_network_of_its_config_json(tmp_path, monkeypatch):
    name, kwargs = "vit_base_patch16_224", VIT | {"img_size": 32, "num_heads": 6, "act_layer": "relu"}
    file, _ = write(tmp_path, name, **kwargs)
    pretrained.save(*pretrained.load(name, file, **kwargs), file, timm_name=name)
    settings = {"name": name, "path": str(file), "offline": True, "kwargs": {}}
    backbone = embedder.backbone("", "", jnp.float32, {}, settings)
    model, params = pretrained.load(name, file)
    assert backbone.module == model and (model.num_heads, model.act) == (6, "relu")
    assert equal(backbone.load(), params)
    # The hub's config.json is only read with the weights; differences are not dropped silently.
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repository, name, **_: str(tmp_path / name))
    settings |= {"path": "", "kwargs": VIT | {"img_size": 32}}
    monkeypatch.setitem(settings["kwargs"], "num_heads", None)
    with pytest.raises(InputError, match="describes a network with num_heads=6, act='relu'; set these in config.train"):
        embedder.backbone("", "", jnp.float32, {}, settings).load()


@pytest.mark.parametrize("mode", ["squash", "border"])
def test_crop_mode_is_saved_with_the_weights(tmp_path, mode):
    file, _ = write(tmp_path, "convnext_atto", **CONVNEXT)
    about = pretrained.Info((0.4,) * 3, (0.2,) * 3, "bicubic", 0.9, (32, 32), "mit", mode)
    pretrained.save(*pretrained.load("convnext_atto", file, **CONVNEXT), file, timm_name="convnext_atto", about=about)
    if mode == "squash":
        assert pretrained.info("convnext_atto", file) == about
    else:
        with pytest.raises(InputError, match="crop_mode='border'; supported are 'center' and 'squash'"):
            pretrained.info("convnext_atto", file)


def test_both_files_of_a_tag_are_downloaded(tmp_path, monkeypatch):
    file, tensors = write(tmp_path, "vit_base_patch16_clip_quickgelu_224", img_size=32, **VIT)
    cfg = {
        "mean": [0.1, 0.2, 0.3],
        "std": [1, 1, 1],
        "crop_pct": 0.8,
        "interpolation": "bilinear",
        "license": "odd",
        "input_size": [3, 32, 32],
    }
    (tmp_path / "config.json").write_text(
        json.dumps({"model_args": {**VIT, "img_size": 32, "num_classes": 3}, "pretrained_cfg": cfg})
    )
    asked = []

    def download(repository, filename, local_files_only):
        asked.append((repository, filename, local_files_only))
        return str(tmp_path / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    model, params = pretrained.load("vit_base_patch16_clip_quickgelu_224.openai", offline=True)
    assert asked == [
        ("timm/vit_base_patch16_clip_224.openai", name, True) for name in ("config.json", "model.safetensors")
    ]
    assert model.act == "quick_gelu" and np.array_equal(params["class_token"], tensors["cls_token"])
    info = pretrained.info("vit_base_patch16_clip_quickgelu_224.openai", tmp_path)
    assert info == pretrained.Info((0.1, 0.2, 0.3), (1, 1, 1), "bilinear", 0.8, (32, 32), "odd")


def test_weights_that_cannot_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        InputError, match="cannot get config.json of timm/convnext_atto.d2_in1k from the hub .*run once without offline"
    ):
        pretrained.load("convnext_atto", offline=True)

    def broken(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", broken)
    with pytest.raises(InputError, match=r"\(no route\); check the name and the network; .*give the path"):
        pretrained.load("convnext_atto")
    monkeypatch.setitem(vit.TIMM, "vit_new", vit.TIMM["test_vit"])
    with pytest.raises(InputError, match="no published weights of 'vit_new' are known; give a tag, as in vit_new.TAG"):
        pretrained.load("vit_new")


def test_backbones_define_their_mapping_to_timm():
    for name in set(models.names()) - {"supernet"}:  # which nobody has published weights of
        module = models.get(name)
        assert module.TIMM and module.TIMM_RULES and callable(module.from_timm) and callable(module.to_timm), name
    assert convnext.TIMM["convnext_xlarge"]["dims"] == (256, 512, 1024, 2048)
