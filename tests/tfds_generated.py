"""Small real tfds datasets out of generated pictures, prepared without TensorFlow, for the tests."""

import cv2
import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.datasets.stanford_online_products import stanford_online_products_dataset_builder as sop

COUNTS = {"train": 12, "test": 15}
OFFSET = {"train": 0, "test": 100}  # the classes of train and test are other products


def picture(number: int, side: int = 40) -> bytes:
    """Returns a JPEG that no other number has, `side` pixels high and a quarter wider."""
    rng = np.random.default_rng(number)
    image = cv2.resize(rng.integers(0, 256, (4, 5, 3), np.uint8), (side * 5 // 4, side), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


class StanfordOnlineProducts(sop.Builder, skip_registration=True):
    """The builder that tfds has, name and features as they are, with pictures of its own: three of every class."""

    name = "stanford_online_products"
    pkg_dir_path = epath.Path(sop.__file__).parent

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in COUNTS}

    def _generate_examples(self, split):
        for number in range(COUNTS[split]):
            product = OFFSET[split] + number // 3
            yield (
                number,
                {
                    "class_id": product,
                    "super_class_id/num": product % 2,
                    "super_class_id": product % 2,
                    "image": picture(1000 * OFFSET[split] + number),
                },
            )


class GeneratedListings(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Titles, ids and nested columns; some of the records are faulty as real ones are."""

    name = "generated_listings"
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, records, **kwargs):
        self.records = records
        super().__init__(**kwargs)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "photo": tfds.features.Image(),
                    "sku": tfds.features.Text(),
                    "name": tfds.features.Text(),
                    "about": {"kind": tfds.features.ClassLabel(names=["shoe", "shirt"]), "price": np.float32},
                    "words": tfds.features.Sequence(tfds.features.Text()),
                    "depth": tfds.features.Image(dtype=np.uint16),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in self.records}

    def _generate_examples(self, split):
        for number, record in enumerate(self.records[split]):
            yield (
                number,
                {
                    "photo": picture(number),
                    "sku": f"{split}{number}",
                    "name": f"listing {number}",
                    "about": {"kind": number % 2, "price": 2.0},
                    "words": [],
                    "depth": b"",
                }
                | record,
            )


def prepare(builder, folder, file_format: str, **kwargs):
    """Prepares a dataset as tfds does by default, its records in another order than they were made in.

    Args:
      builder: class of it.
      folder: tfds's data_dir.
      file_format: "array_record" or "parquet".
      **kwargs: of the class.

    Returns:
      The folder that holds its dataset_info.json.
    """
    made = builder(data_dir=folder, file_format=file_format, **kwargs)
    made.download_and_prepare()
    return made.data_path
