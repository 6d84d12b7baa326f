"""Times every transform on one core, in pictures per second, from a photo of 400 x 300 pixels to 224 x 224.

    python benchmarks/augment.py [--seconds=1]

Prints a Markdown table. Transforms that resize are timed alone, the others on a picture that already has the final
size; the last rows are complete lists as configs use them, without decoding.
"""

import argparse
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from retrieval_jax.data.pictures import transforms  # noqa: E402

SIZE = (224, 224)
CROP = "random_resized_crop"
SPECS = {
    **{f"resize, {name}": (("resize", {"interpolation": name}),) for name in ("area", "bilinear", "bicubic")},
    "center_crop, bicubic": (("center_crop", {}),),
    **{f"random_resized_crop, {name}": ((CROP, {"interpolation": name}),) for name in ("area", "bicubic", "random")},
    "flip": (("flip", {}),),
    "color_jitter": (("color_jitter", {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}),),
    "erasing": (("erasing", {"p": 1.0}),),
    "trivial_augment": (("trivial_augment", {}),),
    "rand_augment": (("rand_augment", {}),),
    **{
        f"trivial_augment, {name}": (("trivial_augment", {"ops": (name,)}),)
        for name in (
            "autocontrast",
            "equalize",
            "posterize",
            "brightness",
            "contrast",
            "color",
            "sharpness",
            "shear_x",
            "translate_x",
            "rotate",
        )
    },
    "list: crop, flip": ((CROP, {}), ("flip", {})),
    "list: crop, flip, jitter, erasing": (
        (CROP, {}),
        ("flip", {}),
        ("color_jitter", {"brightness": 0.2}),
        ("erasing", {"p": 0.25}),
    ),
    "list: crop, flip, trivial_augment": ((CROP, {}), ("flip", {}), ("trivial_augment", {})),
    "list: ConvNeXt's (bicubic crop, flip, rand_augment, erasing)": (
        (CROP, {"scale": (0.08, 1.0), "interpolation": "bicubic"}),
        ("flip", {}),
        ("rand_augment", {}),
        ("erasing", {"p": 0.25}),
    ),
}


def pictures_per_second(apply, images, seconds):
    """Returns the rate over a given time."""
    rng, count, start = np.random.default_rng(0), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for image in images:
            apply(image, rng)
        count += len(images)
    return count / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="per row")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    small = np.random.default_rng(0).integers(0, 256, (8, 10, 8, 3), dtype=np.uint8)
    photos = [cv2.resize(image, (300, 400), interpolation=cv2.INTER_CUBIC) for image in small]
    ready = [cv2.resize(image, SIZE[::-1]) for image in photos]
    print(f"OpenCV {cv2.__version__}, one core\n\n| transform | pictures per second |\n|---|---|")
    for name, spec in SPECS.items():
        sizes = spec[0][0] in ("resize", "center_crop", CROP)
        apply = transforms.compose(spec if sizes else (("resize", {}), *spec), SIZE)
        pictures = photos if sizes else ready
        print(f"| {name} | {pictures_per_second(apply, pictures, arguments.seconds):,.0f} |", flush=True)


if __name__ == "__main__":
    main()
