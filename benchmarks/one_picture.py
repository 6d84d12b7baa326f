"""Makes a catalogue with one picture a product out of users' photos of clothes, embedded by the network of a run.

    python benchmarks/one_picture.py --photos=clothing_photos.tar --run=runs/fashion_softmax --out=runs/one_picture
    python benchmarks/one_picture.py --photos=clothing_photos.tar --weights=lite0.safetensors --out=runs/one_lite0

Each photo is one product of the gallery; a query is another look at such a photo: turned, seen from the side, cropped,
under another light and compressed once more, by a process unlike `data.pictures.altered`. No titles, no train split:
the steps can be chosen by altered pictures alone. Writes embeddings, evidence and truth.npz, for choosing.py.
"""

import argparse
import pathlib
import sys
import tarfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from retrieval_jax import inference  # noqa: E402
from retrieval_jax.data.pictures.altered import Altered  # noqa: E402
from retrieval_jax.embeddings import Embeddings, evidence  # noqa: E402


def look_again(image: np.ndarray, seed: int) -> np.ndarray:
    """Returns the photo as another user might have taken it."""
    random = np.random.default_rng((seed, 99))
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = corners + random.uniform(-0.18, 0.18, (4, 2)).astype(np.float32) * [width, height]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), random.uniform(-20, 20), random.uniform(0.8, 1.3))
    warped = cv2.warpPerspective(
        image,
        cv2.getPerspectiveTransform(corners, moved.astype(np.float32)),
        (width, height),
        borderMode=cv2.BORDER_REFLECT,
    )
    warped = cv2.warpAffine(warped, turn, (width, height), borderMode=cv2.BORDER_REFLECT).astype(np.float32)
    shade = np.linspace(random.uniform(0.5, 1.0), random.uniform(0.7, 1.3), width)[None, :, None]
    warm = np.array([random.uniform(0.8, 1.25), 1.0, random.uniform(0.8, 1.25)])
    lit = 255 * (np.clip(warped * shade * warm, 0, 255) / 255) ** random.uniform(0.7, 1.5)
    _, data = cv2.imencode(".jpg", lit.astype(np.uint8)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 35])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


def public(path: str):
    """Returns the function that embeds pictures with EfficientNet-Lite0's public weights, and its space."""
    import jax

    from retrieval_jax.models import pixels, pretrained

    name, size, rows = "tf_efficientnet_lite0.in1k", (160, 120), 32
    info = pretrained.info(name, path)
    module, params = pretrained.load(name, path, offline=True, img_size=size)

    @jax.jit
    def forward(batch):
        return module.apply({"params": params}, pixels.normalize(batch, module.dtype, info.mean, info.std))["embedding"]

    def embed(pictures):
        found = []
        for start in range(0, len(pictures), rows):
            some = [cv2.resize(one, size[::-1], interpolation=cv2.INTER_AREA) for one in pictures[start : start + rows]]
            batch = np.zeros((rows, *size, 3), np.uint8)
            batch[: len(some)] = some
            found.append(np.asarray(forward(batch))[: len(some)])
        return np.concatenate(found)

    return embed, name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, type=pathlib.Path)
    parser.add_argument("--run", help="its network embeds")
    parser.add_argument("--weights", help="or these: EfficientNet-Lite0's, untrained here")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--gallery", type=int, default=2000)
    parser.add_argument("--queries", type=int, default=500)
    args = parser.parse_args()
    if args.weights:
        embed, space = public(args.weights)
    else:
        model = inference.load(args.run)
        embed, space = model.embed, model.space
    photos = []
    with tarfile.open(args.photos) as tar:
        for entry in sorted((e for e in tar if e.name.lower().endswith((".jpg", ".jpeg"))), key=lambda e: e.name):
            image = cv2.imdecode(np.frombuffer(tar.extractfile(entry).read(), np.uint8), cv2.IMREAD_COLOR)
            scale = 160 / max(image.shape[:2])
            photos.append(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[..., ::-1])
    order = np.random.default_rng(0).permutation(len(photos))[: args.gallery]
    gallery = [photos[row] for row in order.tolist()]
    asked = np.arange(0, len(gallery), max(1, len(gallery) // args.queries))[: args.queries]
    queries = [look_again(gallery[row], row) for row in asked.tolist()]
    rows = np.arange(0, len(gallery), 2)
    altered = Altered(gallery, rows, queries)
    folder, meta = args.out / "embeddings" / "trained", {"space": space}
    for name, pictures, ids in (
        ("gallery", gallery, [str(row) for row in range(len(gallery))]),
        ("query", queries, [f"query {row}" for row in asked.tolist()]),
        (f"{evidence.FOLDER}/altered", [altered[i] for i in range(len(altered))], [str(row) for row in rows.tolist()]),
    ):
        Embeddings(ids, embed(pictures), meta).save(folder / name)
    np.savez(args.out / "truth.npz", indptr=np.arange(len(asked) + 1), rows=asked)


if __name__ == "__main__":
    main()
