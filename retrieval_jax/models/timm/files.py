"""Weight files: finds them on the hub or locally, and reads the facts about pictures and licence beside them."""

import dataclasses
import json
import pathlib

import huggingface_hub
import safetensors

from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents
from retrieval_jax.models.timm import checkpoints as timm_checkpoints


@dataclasses.dataclass(frozen=True)
class Info:
    """How pictures must be prepared for published weights, and the licence of the weights.

    Attributes:
      mean: mean per RGB channel, for pictures in 0..1.
      std: standard deviation per RGB channel, likewise.
      interpolation: interpolation of the resize, such as "bicubic".
      crop_pct: share of the resized picture's side that the centre crop keeps.
      input_size: (height, width) of the pictures, pixels.
      licence: as the publisher names it; "" if unknown.
      crop_mode: "center" keeps the proportions and crops the longer side, "squash" does not keep them.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    crop_pct: float
    input_size: tuple[int, int]
    licence: str
    crop_mode: str = "center"


def find(architecture: str, tag: str, path, offline: bool) -> tuple[pathlib.Path, dict]:
    """Finds a weight file, and downloads it if necessary.

    Args:
      architecture: timm's name without tag.
      tag: tag of the weights on the hub.
      path: safetensors file, or a folder with model.safetensors; None for the hub.
      offline: use only the local cache of the hub.

    Returns:
      (safetensors file, contents of the config.json beside it, or {}).

    Raises:
      InputError: there is no such file, it has another format, or the hub cannot be reached.
    """
    if path:
        path = pathlib.Path(path)
        path = path / "model.safetensors" if path.is_dir() else path
        if not path.is_file():
            raise InputError(
                f"{path} does not exist; give a safetensors file, or no path to get {architecture!r} from the hub"
            )
        if path.suffix != ".safetensors":
            raise InputError(
                f"{path} is not a safetensors file; other formats are not supported, because reading them can "
                "run code; download model.safetensors of the same model"
            )
        return path, read_config(path)
    if not tag:
        raise InputError(
            f"no published weights of {architecture!r} are known; give a tag, as in {architecture}.TAG, or "
            "the path of a safetensors file"
        )
    # Weights that differ in their activation only have one repository.
    repository = f"timm/{architecture.replace('_quickgelu', '')}.{tag}"
    _download(repository, "config.json", offline)
    path = _download(repository, "model.safetensors", offline)
    return path, read_config(path)


def check(architecture: str, tag: str, path, offline: bool) -> None:
    """Checks that weights can be had, without downloading them: a file is opened, the hub is asked for config.json.

    Args:
      architecture, tag, path, offline: see `find`.

    Raises:
      InputError: see `find`; or the file is not in the format of safetensors.
    """
    if not path and tag and not offline:
        _download(f"timm/{architecture.replace('_quickgelu', '')}.{tag}", "config.json", offline)
        return
    file, _ = find(architecture, tag, path, offline)
    try:
        with safetensors.safe_open(file, "numpy"):
            pass
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{file} is not a readable safetensors file ({error}); download it again") from error


def read_config(weights: pathlib.Path) -> dict:
    """Returns the contents of the config.json beside a weight file, or {}."""
    path = weights.with_name("config.json")
    if not path.is_file():
        return {}
    return documents.read(path, dict, remedy="download it again, or remove it", most_bytes=64 << 20)


def _download(repository: str, filename: str, offline: bool) -> pathlib.Path:
    try:
        return pathlib.Path(huggingface_hub.hf_hub_download(repository, filename, local_files_only=offline))
    except Exception as error:  # the hub's client passes on whatever its network layers raise
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        remedy = (
            "run once without offline on a machine with access to the hub, or give the path of the file"
            if offline
            else "check the name and the network; on a machine without access to the hub, give the path of a "
            "copy of model.safetensors with config.json beside it, or fill the cache (HF_HOME) and set offline"
        )
        raise InputError(f"cannot get {filename} of {repository} from the hub ({reason.strip()}); {remedy}") from error


def info(architecture: str, tag: str, config: dict, image_size: tuple[int, int]) -> Info:
    """Returns the `Info` of weights, from config.json and, for what it lacks, from timm's own table.

    Args:
      architecture: timm's name without tag.
      tag: tag of the weights, or "".
      config: contents of config.json, or {}.
      image_size: (height, width) if neither gives a size.

    Raises:
      InputError: the pictures need a preparation that is not supported.
    """
    given = config.get("pretrained_cfg", config)
    given = timm_checkpoints.metadata(architecture, tag) | {k: v for k, v in given.items() if v is not None}
    height, width = (given.get("input_size") or (3, *image_size))[1:]
    if given["crop_mode"] not in ("center", "squash"):
        raise InputError(
            f"the config.json of {architecture} has crop_mode={given['crop_mode']!r}; supported are 'center' "
            "and 'squash': change it there"
        )
    return Info(
        tuple(given["mean"]),
        tuple(given["std"]),
        given["interpolation"],
        float(given["crop_pct"]),
        (int(height), int(width)),
        str(given.get("license") or ""),
        given["crop_mode"],
    )


def write_config(weights: pathlib.Path, architecture: str, arguments: dict, ours: dict, about: Info) -> None:
    """Writes the config.json beside a weight file, in the form that timm's "local-dir:" reads.

    Args:
      weights: the safetensors file.
      architecture: timm's name without tag.
      arguments: arguments of timm's constructor.
      ours: fields of our Model that timm's constructor lacks.
      about: picture preparation and licence.
    """
    pictures = {
        "input_size": (3, *about.input_size),
        "interpolation": about.interpolation,
        "mean": about.mean,
        "std": about.std,
        "crop_pct": about.crop_pct,
        "crop_mode": about.crop_mode,
        "license": about.licence or None,
    }
    contents = {
        "architecture": architecture,
        "num_classes": 0,
        "model_args": {**arguments, "num_classes": 0},
        "pretrained_cfg": {**pictures, "num_classes": 0},
    }
    if ours:
        contents["retrieval_jax"] = ours
    atomic.write_text(weights.with_name("config.json"), json.dumps(contents, indent=1) + "\n")
