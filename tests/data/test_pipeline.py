"""Batches: each row once an epoch, the same batch for a step however it is read."""

import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from retrieval_jax.data import pipeline
from retrieval_jax.errors import InputError

N = 29
AUGMENT = (("random_resized_crop", {}), ("flip", {}), ("erasing", {}))


class Pictures:
    """Row r is a 6 x 5 picture made from seed r."""

    def __len__(self):
        return N

    def __getitem__(self, row):
        return np.random.default_rng(row).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def columns():
    counts = np.arange(N) % 4
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return {
        "image": Pictures(),
        "label_ids": (indptr, np.arange(1, indptr[-1] + 1, dtype=np.int32)),
        "category": np.arange(N, dtype=np.int32) * 10,
        "title": None,
    }


VIEWS = (
    {"transforms": AUGMENT},
    {"transforms": (("random_resized_crop", {"scale": (0.05, 0.3)}),), "image_size": (4, 3)},
)


class Gallery(Pictures):
    """17 pictures; the pixel at the upper left tells which."""

    def __len__(self):
        return 17

    def __getitem__(self, row):
        picture = super().__getitem__(1000 + row)
        picture[0, 0] = row
        return picture


def unlabelled(**kw):
    return {
        "image": Gallery(),
        "batch_size": 12,
        "transform": (("resize", {}), ("erasing", {"scale": (0.1, 0.2)})),
        "image_size": (6, 5),
        **kw,
    }


MORE = {"views": VIEWS, "unlabelled": unlabelled()}


def read(**kw):
    kw = {
        "transform": AUGMENT,
        "image_size": (8, 6),
        "batch_size": 6,
        "seed": 3,
        "num_steps": 15,
        "num_threads": 0,
        **kw,
    }
    return list(pipeline.train_batches(columns(), **kw))


def equal(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for key in x:
            assert x[key].dtype == y[key].dtype and np.array_equal(x[key], y[key]), key


def test_every_row_exactly_once_an_epoch_and_every_epoch_in_another_order():
    rows = np.concatenate([b["row"] for b in read()])
    assert len(rows) == 90
    epochs = rows[:87].reshape(3, N)
    assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[0], np.arange(N))


def test_batch_holds_shapes_types_labels_and_columns_of_its_rows():
    indptr, ids = columns()["label_ids"]
    for batch in read():
        assert batch["image"].shape == (6, 8, 6, 3) and batch["image"].dtype == np.uint8
        assert batch["label_ids"].shape == batch["label_mask"].shape == (6, 3) and batch["label_ids"].dtype == np.int32
        assert batch["row"].dtype == np.int32 and batch["_mask"].all() and "title" not in batch
        assert np.array_equal(batch["category"], batch["row"] * 10)
        for i, row in enumerate(batch["row"]):
            assert batch["label_ids"][i][batch["label_mask"][i]].tolist() == ids[indptr[row] : indptr[row + 1]].tolist()
            assert (batch["label_ids"][i][~batch["label_mask"][i]] == 0).all()


@pytest.mark.parametrize("start", [1, 4, 5, 14])
def test_resumed_run_reads_what_the_uninterrupted_one_reads(start):
    equal(read(start_step=start), read()[start:])


def test_longer_run_begins_like_the_shorter_one():
    equal(read(num_steps=20)[:15], read())


def test_threads_do_not_matter():
    equal(read(num_threads=8), read(num_threads=1))
    equal(read(num_threads=1), read(num_threads=0))


def test_worker_processes_do_not_matter():
    kw = {
        "transform": (
            ("random_resized_crop", {"interpolation": "random"}),
            ("trivial_augment", {}),
            ("rand_augment", {}),
        ),
        "start_step": 2,
    }
    equal(read(**kw, num_workers=2, num_threads=1), read(**kw))


def joined(parts, real):
    """Puts the parts of the processes together and takes the padding off: the global batches."""
    steps = []
    for step in zip(*parts, strict=True):
        whole = {k: np.concatenate([part[k] for part in step]) for k in step[0]}
        for k, rows in whole.items():
            wanted = real if not k.startswith("unlabelled_") else 12
            padding = rows[wanted:]
            assert (padding == (-1 if k in ("row", "unlabelled_row") else 0)).all(), k
            whole[k] = rows[:wanted]
        steps.append(whole)
    return steps


@pytest.mark.parametrize("count, padded", [(2, 6), (3, 6), (4, 8), (5, 10), (8, 8)])
def test_processes_together_read_the_global_batch_and_padding_after_it(count, padded):
    share = padded // count
    parts = [read(places=np.arange(p * share, (p + 1) * share), start_step=3) for p in range(count)]
    equal(joined(parts, 6), read(start_step=3))
    if padded == 10:  # one with nothing but padding
        last = read(places=[8, 9], start_step=3)[0]
        assert not last["_mask"].any() and last["image"].shape == (2, 8, 6, 3) and not last["label_mask"].any()


def test_places_of_a_process_may_lie_anywhere():
    for batch, whole in zip(read(places=[1, 4, 7]), read(), strict=True):
        assert batch["_mask"].tolist() == [True, True, False] and np.array_equal(batch["row"][:2], whole["row"][[1, 4]])
        assert np.array_equal(batch["image"][:2], whole["image"][[1, 4]])


def test_seed_matters_and_augmentation_differs_between_epochs():
    assert not np.array_equal(read(seed=4)[0]["row"], read()[0]["row"])
    batches = read(num_steps=29)
    seen = {}
    for batch in batches:
        for row, image in zip(batch["row"], batch["image"], strict=True):
            seen.setdefault(int(row), set()).add(image.tobytes())
    assert np.mean([len(s) for s in seen.values()]) > 5.5


def test_batch_larger_than_the_split():
    rows = np.concatenate([b["row"] for b in read(batch_size=64, num_steps=2)])
    assert sorted(rows[:N]) == list(range(N)) and sorted(rows[N : 2 * N]) == list(range(N))


def test_eval_batches_in_order_with_the_last_one_padded():
    batches = list(pipeline.eval_batches(Pictures(), transform=(("resize", {}),), image_size=(6, 5), batch_size=8))
    assert [b["_mask"].sum() for b in batches] == [8, 8, 8, 5]
    rows = np.concatenate([b["row"][b["_mask"]] for b in batches])
    assert np.array_equal(rows, np.arange(N)) and (batches[-1]["row"][5:] == -1).all()
    images = np.concatenate([b["image"][b["_mask"]] for b in batches])
    assert np.array_equal(images, np.stack([Pictures()[r] for r in range(N)]))
    assert not batches[-1]["image"][5:].any()


def test_eval_batches_of_chosen_rows():
    [batch] = pipeline.eval_batches(
        Pictures(), transform=(("resize", {}),), image_size=(6, 5), batch_size=4, rows=[7, 3]
    )
    assert batch["row"].tolist() == [7, 3, -1, -1] and np.array_equal(batch["image"][0], Pictures()[7])


def test_eval_batches_of_processes_join_to_the_whole():
    kw = {"transform": (("resize", {}),), "image_size": (6, 5), "batch_size": 8}
    parts = [pipeline.eval_batches(Pictures(), **kw, places=range(3 * p, 3 * p + 3)) for p in range(3)]
    equal(joined(parts, 8), list(pipeline.eval_batches(Pictures(), **kw)))


def test_bad_columns_are_refused():
    with pytest.raises(InputError, match="category 3"):
        pipeline.train_batches(
            {"image": Pictures(), "category": np.zeros(3)},
            transform=AUGMENT,
            image_size=(8, 8),
            batch_size=2,
            seed=0,
            num_steps=1,
        )
    with pytest.raises(InputError, match="batch_size is 0: give 1 or more"):
        read(batch_size=0)
    with pytest.raises(InputError, match="'image'"):
        pipeline.train_batches({}, transform=AUGMENT, image_size=(8, 8), batch_size=2, seed=0, num_steps=1)


def test_an_error_while_reading_a_picture_reaches_the_caller():
    class Broken(Pictures):
        def __getitem__(self, row):
            raise InputError(f"row {row} is broken")

    with pytest.raises(Exception, match="is broken"):
        list(pipeline.eval_batches(Broken(), transform=(("resize", {}),), image_size=(6, 5), batch_size=8))


def test_stream_of_pictures_and_rows_is_pinned():
    # Nothing that resamples, whose last bit may depend on the version of OpenCV. If this changes, runs no longer
    # resume or repeat as before: do so on purpose only, and say so.
    digest = hashlib.sha256()
    for batch in read(transform=(("resize", {}), ("flip", {}), ("erasing", {})), image_size=(6, 5)):
        for name in sorted(batch):
            digest.update(name.encode() + batch[name].tobytes())
    assert digest.hexdigest()[:16] == "b8a141a680efe7bd"


def test_further_views_and_unlabelled_pictures_change_nothing_else():
    plain = read()
    for kw in ({"views": VIEWS}, {"unlabelled": unlabelled()}, MORE):
        equal([{name: batch[name] for name in plain[0]} for batch in read(**kw)], plain)


def test_views_are_crops_of_the_same_pictures():
    for batch in read(views=VIEWS):
        assert batch["image_view1"].shape == (6, 8, 6, 3) and batch["image_view2"].shape == (6, 4, 3, 3)
        assert batch["image_view2"].dtype == np.uint8 and not np.array_equal(batch["image"], batch["image_view1"])
    for batch in read(transform=(("resize", {}),), views=({"transforms": (("resize", {}), ("flip", {"p": 1.0}))},)):
        assert np.array_equal(batch["image"][:, :, ::-1], batch["image_view1"])


def test_unlabelled_pictures_have_epochs_and_an_order_of_their_own():
    batches = read(unlabelled=unlabelled(transform=(("resize", {}),)))
    rows = np.concatenate([batch["unlabelled_row"] for batch in batches])
    images = np.concatenate([batch["unlabelled_image"] for batch in batches])
    assert np.array_equal(images, np.stack([Gallery()[row] for row in rows])) and images.dtype == np.uint8
    epochs = rows[:170].reshape(10, 17)
    assert all(sorted(epoch) == list(range(17)) for epoch in epochs) and len({e.tobytes() for e in epochs}) == 10
    assert all(batch["unlabelled_mask"].all() and len(batch["unlabelled_mask"]) == 12 for batch in batches)
    same = read(unlabelled=unlabelled(image=Pictures(), batch_size=6))
    assert not np.array_equal(same[0]["row"], same[0]["unlabelled_row"])
    assert not np.array_equal(read(unlabelled=unlabelled(), seed=4)[0]["unlabelled_row"], rows[:12])


def test_position_of_views_and_unlabelled_pictures_is_the_step_for_any_threads_workers_and_processes():
    whole = read(**MORE)
    equal(read(**MORE, start_step=4), whole[4:])
    equal(read(**MORE, num_steps=18)[:15], whole)
    equal(read(**MORE, num_threads=4), whole)
    equal(read(**MORE, num_threads=1, num_workers=2, start_step=3), whole[3:])
    parts = [
        read(
            views=VIEWS, unlabelled=unlabelled(places=range(4 * p, 4 * p + 4)), places=[2 * p, 2 * p + 1], start_step=1
        )
        for p in range(4)
    ]
    equal(joined(parts, 6), whole[1:])


@pytest.mark.parametrize(
    "kw, words",
    [
        ({"views": ({"transform": AUGMENT},)}, "view 1 has no setting 'transform'; it takes: transforms, image_size"),
        ({"unlabelled": {"image": [1]}}, "unlabelled lacks batch_size, transform"),
        ({"unlabelled": unlabelled(image=[])}, "no pictures"),
        ({"unlabelled": unlabelled(batch_size=0)}, "unlabelled batch_size is 0"),
    ],
)
def test_bad_views_and_unlabelled_sources_are_refused(kw, words):
    with pytest.raises(InputError, match=words):
        read(**kw)


READER = """
import multiprocessing, sys
import numpy as np
from retrieval_jax.data import pipeline
if __name__ == "__main__":
    batches = pipeline.train_batches({"image": np.zeros((9, 4, 4, 3), np.uint8)}, transform=(("resize", {}),), seed=0,
                                     image_size=(4, 4), batch_size=2, num_steps=10**9, num_threads=1, num_workers=2)
    next(batches), next(batches)
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    for line in sys.stdin:
        print(sum(len(next(batches)["row"]) for _ in range(int(line))), flush=True)
"""


def test_workers_end_with_the_process_that_reads_and_not_at_its_signals(tmp_path):
    (tmp_path / "reader.py").write_text(READER)
    root = pathlib.Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, tmp_path / "reader.py"],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        workers = [int(pid) for pid in reader.stdout.readline().split()]
        assert len(workers) == 2
        for pid in workers:  # Slurm, and Ctrl-C in a terminal, signal every process
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
        reader.stdin.write("40\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "80\n"
        reader.kill()
    for _ in range(300):
        left = [pid for pid in workers if _runs(pid)]
        if not left:
            return
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    raise AssertionError("workers outlived the process that was killed")


def _runs(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
