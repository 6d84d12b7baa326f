"""Times the path from JPEG files to augmented batches, side by side: ours, bare OpenCV, PyTorch's DataLoader.

    python benchmarks/pipeline.py [--rounds=5] [--torch-python=/path/to/python with torch and torchvision]
    python benchmarks/pipeline.py --pictures=64 --seconds=1 --rounds=1 --cores 1                # smoke test, seconds

Generated photos of 500 x 500 pixels (shapes, structure of all sizes, noise; quality 87, about 50 kB) are stored in
files, few enough to stay in the system's file cache. The work: random resized crop to 224 x 224 (0.2 to 1 of the area),
flip, TrivialAugment, batches of 64. Every system gets as many threads or processes as cores, pinned to those cores.

    ours             num_threads = cores, crop_before_decoding, interpolation "halves": uint8 batches, as sent to the
                     device, which normalises them
    ours, area       the same with the whole picture decoded and area interpolation, the defaults
    ours, float      `ours` with batches normalised on the host, for the comparison with PyTorch
    ours, processes  `ours` with num_workers = cores instead of threads
    OpenCV linear    only reading, cv2.imdecode and cv2.resize of the whole picture to 224 x 224, with one process per
    OpenCV area      core
    PyTorch          DataLoader (num_workers = cores) with torchvision's transforms on Pillow images: float32 batches

Every timing runs in its own process; rounds alternate between the systems. Prints pictures per second (median and
range) and the ratios within a round in Markdown, and writes everything with --out.
"""

import argparse
import datetime
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
SIDE, QUALITY, SIZE, BATCH, SCALE = 500, 87, 224, 64, (0.2, 1.0)
ROWS = 1_000_000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OURS = ("ours", "ours, area", "ours, float", "ours, processes")
SYSTEMS = (*OURS, "OpenCV linear", "OpenCV area", "PyTorch")
RATIOS = (("ours", "OpenCV linear"), ("ours, area", "OpenCV area"), ("ours, float", "PyTorch"), ("ours", "ours, area"))


def write_pictures(folder: pathlib.Path, count: int) -> float:
    """Writes the photos 0.jpg, 1.jpg, ..., always the same; returns their mean size in bytes."""
    import cv2
    import numpy as np

    total = 0
    for number in range(count):
        rng, image = np.random.default_rng(number), np.full((SIDE, SIDE, 3), 128, np.float32)
        for cells, strength in ((4, 60), (16, 35), (64, 18), (250, 9)):
            noise = rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
            image += cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        for _ in range(12):
            centre, radius = rng.integers(0, SIDE, 2).tolist(), int(rng.integers(10, 120))
            cv2.circle(image, centre, radius, rng.integers(0, 256, 3).tolist(), -1, cv2.LINE_AA)
        image += rng.normal(0, 3, image.shape)
        image = np.clip(image, 0, 255).astype(np.uint8)
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        (folder / f"{number}.jpg").write_bytes(data)
        total += len(data)
    return total / count


def rate(batches, seconds: float) -> float:
    """Returns pictures per second of an iterator of batches, after a warm-up."""
    for _ in range(4):
        next(batches)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        count += len(next(batches))
    return count / (time.perf_counter() - start)


def time_ours(system: str, folder: pathlib.Path, count: int, cores: int, seconds: float) -> float:
    """Times our pipeline."""
    sys.path.insert(0, str(ROOT))
    import numpy as np

    from retrieval_jax.data import pipeline
    from retrieval_jax.data.examples import Examples, Pictures
    from retrieval_jax.data.pictures import sources

    plain = system == "ours, area"
    crop = {"scale": SCALE, "interpolation": "area" if plain else "halves"}
    # as many rows as a catalogue has: grain's shuffle is slower on few rows
    files = sources.FileImages(folder, [f"{row % count}.jpg" for row in range(ROWS)])
    threads = {"num_threads": 1, "num_workers": cores} if system == "ours, processes" else {"num_threads": cores}
    batches = pipeline.train_batches(
        Examples({"image": Pictures(files)}),
        transform=(("random_resized_crop", crop), ("flip", {}), ("trivial_augment", {})),
        image_size=(SIZE, SIZE),
        batch_size=BATCH,
        seed=0,
        num_steps=10**9,
        crop_before_decoding=not plain,
        **threads,
    )
    gain = np.float32(1) / (255 * np.array(STD, np.float32))
    offset = np.array(MEAN, np.float32) / np.array(STD, np.float32)

    def normalised():
        for batch in batches:
            pictures = batch["image"].astype(np.float32)
            pictures *= gain
            pictures -= offset
            yield pictures

    return rate(normalised() if system == "ours, float" else (batch["image"] for batch in batches), seconds)


def bare(job: tuple) -> float:
    """Decodes and resizes with OpenCV in one process; returns pictures per second."""
    import cv2
    import numpy as np

    folder, count, interpolation, seconds = job
    cv2.setNumThreads(1)
    files = itertools.cycle([f"{folder}/{number}.jpg" for number in range(count)])

    def batches():
        while True:
            yield [
                cv2.resize(
                    cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR),
                    (SIZE, SIZE),
                    interpolation=interpolation,
                )
                for path in itertools.islice(files, BATCH)
            ]

    return rate(batches(), seconds)


def time_bare(system: str, folder: pathlib.Path, count: int, cores: int, seconds: float) -> float:
    """Times OpenCV with one process per core."""
    import multiprocessing

    import cv2

    job = folder, count, cv2.INTER_AREA if system == "OpenCV area" else cv2.INTER_LINEAR, seconds
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        return sum(pool.map(bare, [job] * cores, chunksize=1))


class Files:
    """The pictures as a map-style PyTorch dataset."""

    def __init__(self, folder, count, transform):
        # as many rows as a catalogue has: with short epochs, workers would wait at the end of each
        self.paths, self.transform = [f"{folder}/{row % count}.jpg" for row in range(ROWS)], transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, row):
        from PIL import Image

        with Image.open(self.paths[row]) as image:
            return self.transform(image.convert("RGB"))


def time_torch(folder: pathlib.Path, count: int, cores: int, seconds: float) -> float:
    """Times PyTorch's DataLoader."""
    import torch
    from torchvision import transforms

    torch.set_num_threads(1)
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, scale=SCALE),
            transforms.RandomHorizontalFlip(),
            transforms.TrivialAugmentWide(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    loader = torch.utils.data.DataLoader(
        Files(folder, count, transform),
        batch_size=BATCH,
        shuffle=True,
        num_workers=cores,
        drop_last=True,
        persistent_workers=True,
    )
    return rate(itertools.chain.from_iterable(itertools.repeat(loader)), seconds)


def work(system: str, folder: pathlib.Path, count: int, cores: int, seconds: float) -> None:
    """Runs one timing, in its own process."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    if system in OURS:
        result = time_ours(system, folder, count, cores, seconds)
    elif system == "PyTorch":
        result = time_torch(folder, count, cores, seconds)
    else:
        result = time_bare(system, folder, count, cores, seconds)
    print(json.dumps(result))


def measure(system: str, folder: pathlib.Path, cores: int, arguments) -> float:
    """Runs one timing in a new process."""
    python = arguments.torch_python if system == "PyTorch" else sys.executable
    command = [
        python,
        __file__,
        "--work",
        system,
        f"--folder={folder}",
        f"--pictures={arguments.pictures}",
        "--cores",
        str(cores),
        f"--seconds={arguments.seconds}",
    ]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{system} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="per timing")
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--torch-python",
        default=os.environ.get("TORCH_PYTHON", ""),
        help="interpreter that has torch and torchvision; without it PyTorch is skipped",
    )
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", choices=SYSTEMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work(arguments.work, arguments.folder, arguments.pictures, arguments.cores[0], arguments.seconds)
    systems = [name for name in SYSTEMS if name != "PyTorch" or arguments.torch_python]
    with tempfile.TemporaryDirectory() as folder:
        size = write_pictures(pathlib.Path(folder), arguments.pictures)
        found = {cores: {name: [] for name in systems} for cores in arguments.cores}
        for _ in range(arguments.rounds):
            for cores, name in itertools.product(arguments.cores, systems):
                found[cores][name].append(measure(name, pathlib.Path(folder), cores, arguments))
    ratios = {
        cores: {
            f"{a} / {b}": [x / y for x, y in zip(rates[a], rates[b], strict=True)]
            for a, b in RATIOS
            if a in rates and b in rates
        }
        for cores, rates in found.items()
    }
    print(f"{size / 1e3:.1f} kB per picture, {arguments.rounds} rounds: median (lowest to highest)\n")
    head = " | ".join(f"{cores} core{'s' if cores > 1 else ''}" for cores in arguments.cores)
    for title, table, form in (("pictures per second", found, ",.0f"), ("ratio", ratios, ".2f")):
        print(f"| {title} | {head} |\n|{'---|' * (1 + len(arguments.cores))}")
        for name in table[arguments.cores[0]]:
            print(f"| {name} | {' | '.join(spread(table[cores][name], form) for cores in arguments.cores)} |")
        print()
    if arguments.out:
        arguments.out.write_text(
            json.dumps(
                {
                    "made": datetime.date.today().isoformat(),
                    "bytes_a_picture": round(size),
                    "batch": BATCH,
                    "pictures_a_second": found,
                    "ratios": ratios,
                },
                indent=1,
            )
            + "\n"
        )
    return None


if __name__ == "__main__":
    main()
