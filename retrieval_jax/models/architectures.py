"""Architectures of small networks: what a search may choose from, as numbers, as text, and what each costs."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from retrieval_jax.errors import InputError

KINDS = ("mbconv", "convnext")
PATCH = 4  # side of the stem's patches; each further stage halves the map
EXAMPLE = "32_16-c5x2_48-m3x4-c7x2_64-c3x2"  # 32 px; a stage of width 16 with a ConvNeXt block, kernel 5, expansion 2
_BLOCK = re.compile(r"([mc])(\d+)x(\d+)")


@dataclasses.dataclass(frozen=True)
class Block:
    """A block: one of KINDS, the side of its depthwise kernel, and how much wider it is inside."""

    kind: str
    kernel: int
    expansion: int


@dataclasses.dataclass(frozen=True)
class Stage:
    """Blocks of one width, on maps of one size."""

    width: int
    blocks: tuple[Block, ...]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network: the side of its square pictures in pixels, and its stages."""

    resolution: int
    stages: tuple[Stage, ...]

    def __str__(self) -> str:
        stages = [
            "-".join([str(s.width), *(f"{b.kind[0]}{b.kernel}x{b.expansion}" for b in s.blocks)]) for s in self.stages
        ]
        return "_".join([str(self.resolution), *stages])

    def rows(self, widths: Sequence[int]) -> np.ndarray:
        """Returns where its embedding lies in that of a super-net whose stages are `widths` wide, int64 [D]."""
        starts = np.concatenate([[0], np.cumsum(widths)[:-1]])
        return np.concatenate(
            [start + np.arange(stage.width) for start, stage in zip(starts, self.stages, strict=True)]
        )

    def operations(self) -> int:
        """Returns the multiplications and additions of one picture in matrix products and convolutions, two each.

        Counts as `training.flops` does, a depthwise convolution by the taps of its kernel. The layers on top of the
        embedding are not among them.
        """
        side, channels, total = self.resolution // PATCH, 3, 0
        for number, stage in enumerate(self.stages):
            side = side if number == 0 else side // 2
            area, width = side * side, stage.width
            total += area * width * channels * (PATCH if number == 0 else 2) ** 2
            for block in stage.blocks:
                hidden = block.expansion * width
                total += area * (2 * width * hidden + block.kernel**2 * (hidden if block.kind == "mbconv" else width))
            channels = width
        return 2 * total


@dataclasses.dataclass(frozen=True)
class Space:
    """All architectures that a super-net holds, each as a list of genes: which value of each choice it takes.

    The genes are the resolution; then for each stage its width and depth, and for each of the most blocks that it may
    have the kind, kernel and expansion. Genes of blocks beyond the depth mean nothing. Values rise, so that the first
    is the cheapest and the last the costliest.

    Attributes:
      resolutions: sides of square pictures, pixels.
      widths: channels, for each stage.
      depths: blocks per stage.
      kernels: sides of depthwise kernels, odd.
      expansions: how much wider a block is inside.
    """

    resolutions: tuple[int, ...]
    widths: tuple[tuple[int, ...], ...]
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expansions: tuple[int, ...]

    @property
    def sizes(self) -> np.ndarray:
        """How many values each gene has, int32 [genes]."""
        block = [len(KINDS), len(self.kernels), len(self.expansions)]
        stages = [[len(widths), len(self.depths), *block * self.depths[-1]] for widths in self.widths]
        return np.array([len(self.resolutions), *sum(stages, [])], np.int32)

    @property
    def is_kind(self) -> np.ndarray:
        """Which genes choose the kind of a block, bool [genes]."""
        stage = [False, False, *[True, False, False] * self.depths[-1]]
        return np.array([False, *stage * len(self.widths)])

    def split(self, genes) -> tuple:
        """Returns genes by what they choose: (resolution, [(width, depth, [(kind, kernel, expansion), ...]), ...])."""
        length, stages = 2 + 3 * self.depths[-1], []
        for number in range(len(self.widths)):
            own = genes[1 + number * length : 1 + (number + 1) * length]
            stages.append((own[0], own[1], [own[first : first + 3] for first in range(2, length, 3)]))
        return genes[0], stages

    def decode(self, genes: Sequence[int]) -> Architecture:
        """Returns the architecture of some genes."""
        resolution, stages = self.split([int(gene) for gene in genes])
        return Architecture(
            self.resolutions[resolution],
            tuple(
                Stage(
                    widths[width],
                    tuple(
                        Block(KINDS[kind], self.kernels[kernel], self.expansions[expansion])
                        for kind, kernel, expansion in blocks[: self.depths[depth]]
                    ),
                )
                for widths, (width, depth, blocks) in zip(self.widths, stages, strict=True)
            ),
        )

    def encode(self, architecture: Architecture) -> np.ndarray:
        """Returns the genes of an architecture, 0 where they mean nothing; raises InputError for one of another space.

        Args:
          architecture: such as of `parse`.
        """

        def place(value, values, what):
            if value not in values:
                known = ", ".join(map(str, values))
                raise InputError(f"the architecture {architecture} has the {what} {value}: this super-net has {known}")
            return values.index(value)

        genes = [place(architecture.resolution, self.resolutions, "resolution")]
        if len(architecture.stages) != len(self.widths):
            raise InputError(
                f"the architecture {architecture} has {len(architecture.stages)} stages: this super-net has "
                f"{len(self.widths)}"
            )
        for widths, stage in zip(self.widths, architecture.stages, strict=True):
            genes += [place(stage.width, widths, "width"), place(len(stage.blocks), self.depths, "depth")]
            for block in stage.blocks:
                genes += [
                    KINDS.index(block.kind),
                    place(block.kernel, self.kernels, "kernel"),
                    place(block.expansion, self.expansions, "expansion"),
                ]
            genes += [0, 0, 0] * (self.depths[-1] - len(stage.blocks))
        return np.array(genes, np.int32)


def parse(text: str) -> Architecture:
    """Returns the architecture that `str` has written: its resolution, then each stage's width and blocks.

    Args:
      text: such as EXAMPLE; "m" is an MBConv block and "c" a ConvNeXt block, with kernel x expansion.

    Raises:
      InputError: it is something else.
    """
    resolution, *stages = str(text).split("_")
    found = [stage.split("-") for stage in stages]
    blocks = [[_BLOCK.fullmatch(block) for block in blocks] for _, *blocks in found]
    if (
        not stages
        or not all(one.isdecimal() for one in (resolution, *(s[0] for s in found)))
        or not all(map(all, blocks))
    ):
        raise InputError(f"{text!r} is not an architecture: write it as in {EXAMPLE!r}, as `retrieval-jax nas` does")
    kinds = {kind[0]: kind for kind in KINDS}
    return Architecture(
        int(resolution),
        tuple(
            Stage(int(width), tuple(Block(kinds[one[1]], int(one[2]), int(one[3])) for one in of_stage))
            for (width, *_), of_stage in zip(found, blocks, strict=True)
        ),
    )
