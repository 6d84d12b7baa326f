"""Batches: each row once an epoch, the same batch for a step however it is read.

Longer than 400 lines: every invariant of the pipeline, each on the same few sources.
"""

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
from retrieval_jax.data.examples import Examples, Pictures, Ragged
from retrieval_jax.errors import InputError

N = 29
AUGMENT = (("random_resized_crop", {}), ("flip", {}), ("erasing", {}))


class Source:
    """Row r is a 6 x 5 picture made from seed r."""

    def __len__(self):
        return N

    def __getitem__(self, row):
        return np.random.default_rng(row).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def columns():
    counts = np.arange(N) % 4
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return {
        "image": Pictures(Source()),
        "label_ids": Ragged(indptr, np.arange(1, indptr[-1] + 1, dtype=np.int32)),
        "category": np.arange(N, dtype=np.int32) * 10,
    }


def views(source):
    """Two further crops of the same pictures, the second of another size."""
    small = (("random_resized_crop", {"scale": (0.05, 0.3)}),)
    return {
        "image_view1": Pictures(source, transforms=AUGMENT),
        "image_view2": Pictures(source, transforms=small, image_size=(4, 3)),
    }


class Gallery(Source):
    """17 pictures; the pixel at the upper left tells which."""

    def __len__(self):
        return 17

    def __getitem__(self, row):
        picture = super().__getitem__(1000 + row)
        picture[0, 0] = row
        return picture


def unlabelled(source=None, batch_size=12, transforms=(("resize", {}), ("erasing", {"scale": (0.1, 0.2)}))):
    pictures = Pictures(source or Gallery(), transforms=transforms, image_size=(6, 5))
    return {"unlabelled": Examples({"image": pictures}, batch_size=batch_size)}


def examples(with_views=False, beside=None):
    held = columns()
    return Examples(held | views(held["image"].source) if with_views else held, beside=beside or {})


def read(held=None, **kw):
    kw = {
        "transform": AUGMENT,
        "image_size": (8, 6),
        "batch_size": 6,
        "seed": 3,
        "num_steps": 15,
        "num_threads": 0,
        **kw,
    }
    return list(pipeline.train_batches(held or examples(), **kw))


def more():
    return examples(True, unlabelled())


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
    labels = columns()["label_ids"]
    for batch in read():
        assert batch["image"].shape == (6, 8, 6, 3) and batch["image"].dtype == np.uint8
        assert (
            batch["label_ids"].shape == batch["label_ids_mask"].shape == (6, 3) and batch["label_ids"].dtype == np.int32
        )
        assert batch["row"].dtype == np.int32 and batch["_mask"].all() and "image_mask" not in batch
        assert np.array_equal(batch["category"], batch["row"] * 10)
        for i, row in enumerate(batch["row"]):
            assert batch["label_ids"][i][batch["label_ids_mask"][i]].tolist() == labels[row].tolist()
            assert (batch["label_ids"][i][~batch["label_ids_mask"][i]] == 0).all()


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


def joined(parts, real, beside="unlabelled", real_beside=12):
    """Puts the parts of the processes together and takes the padding off: the global batches."""
    steps = []
    for step in zip(*parts, strict=True):
        whole = {k: np.concatenate([part[k] for part in step]) for k in step[0]}
        for k, rows in whole.items():
            wanted = real if not k.startswith(beside) else real_beside
            padding = rows[wanted:]
            assert (padding == (-1 if k in ("row", f"{beside}_row") else 0)).all(), k
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
        assert not last["_mask"].any() and last["image"].shape == (2, 8, 6, 3) and not last["label_ids_mask"].any()


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


EVAL = {"transform": (("resize", {}),), "image_size": (6, 5), "batch_size": 8}


def test_eval_batches_in_order_with_the_last_one_padded():
    batches = list(pipeline.eval_batches({"image": Pictures(Source())}, **EVAL))
    assert [b["_mask"].sum() for b in batches] == [8, 8, 8, 5]
    rows = np.concatenate([b["row"][b["_mask"]] for b in batches])
    assert np.array_equal(rows, np.arange(N)) and (batches[-1]["row"][5:] == -1).all()
    images = np.concatenate([b["image"][b["_mask"]] for b in batches])
    assert np.array_equal(images, np.stack([Source()[r] for r in range(N)]))
    assert not batches[-1]["image"][5:].any()


def test_eval_batches_of_chosen_rows():
    [batch] = pipeline.eval_batches({"image": Pictures(Source())}, **EVAL | {"batch_size": 4}, rows=[7, 3])
    assert batch["row"].tolist() == [7, 3, -1, -1] and np.array_equal(batch["image"][0], Source()[7])


def test_eval_batches_of_processes_join_to_the_whole():
    parts = [pipeline.eval_batches(columns(), **EVAL, places=range(3 * p, 3 * p + 3)) for p in range(3)]
    equal(joined(parts, 8), list(pipeline.eval_batches(columns(), **EVAL)))


def test_eval_batches_carry_every_kind_of_column():
    labels = columns()["label_ids"]
    for batch in pipeline.eval_batches(columns(), **EVAL):
        real = batch["_mask"]
        assert np.array_equal(batch["category"], np.where(real, batch["row"] * 10, 0))
        for row, ids, mask in zip(batch["row"], batch["label_ids"], batch["label_ids_mask"], strict=True):
            assert ids[mask].tolist() == (labels[row].tolist() if row >= 0 else [])


def test_bad_columns_are_refused():
    with pytest.raises(InputError, match="image 29, category 3"):
        Examples({"image": Pictures(Source()), "category": np.zeros(3)})
    with pytest.raises(InputError, match="batch_size is 0: give 1 or more"):
        read(batch_size=0)
    with pytest.raises(InputError, match="at least one column"):
        Examples({})
    with pytest.raises(InputError, match="no examples"):
        Examples({"image": Pictures([])})
    with pytest.raises(InputError, match="may not be named '_mask'"):
        Examples({"_mask": np.zeros(3, bool)})
    with pytest.raises(InputError, match="29 rows and 1 ids"):
        Examples(columns(), ids=("only one",))
    with pytest.raises(InputError, match="may not be named 'label_ids_mask'"):
        Examples({**columns(), "label_ids_mask": np.zeros(N)})
    with pytest.raises(InputError, match="the column 'title' holds <U5 values"):
        Examples({"title": ["shoes", "hat"]})
    with pytest.raises(InputError, match="rows of pictures run from 0 to 29; the source has 29"):
        Pictures(Source(), np.arange(30))
    with pytest.raises(InputError, match="the examples 'unlabelled' beside others need a batch_size"):
        examples(beside={"unlabelled": Examples({"image": Pictures(Gallery())})})
    with pytest.raises(InputError, match="indptr has to rise from 0 to the number of values, 3"):
        Ragged([0, 2], [1, 2, 3])


def test_an_error_while_reading_a_picture_reaches_the_caller():
    class Broken(Source):
        def __getitem__(self, row):
            raise InputError(f"row {row} is broken")

    with pytest.raises(Exception, match="is broken"):
        list(pipeline.eval_batches({"image": Pictures(Broken())}, **EVAL))


def test_stream_of_pictures_and_rows_is_pinned():
    # Nothing that resamples, whose last bit may depend on the version of OpenCV. If this changes, runs no longer
    # resume or repeat as before: do so on purpose only, and say so.
    digest = hashlib.sha256()
    for batch in read(transform=(("resize", {}), ("flip", {}), ("erasing", {})), image_size=(6, 5)):
        for name in sorted(batch):
            pinned_as = name.replace("label_ids_mask", "label_mask")  # its name when the digest was taken
            digest.update(pinned_as.encode() + batch[name].tobytes())
    assert digest.hexdigest()[:16] == "b8a141a680efe7bd"


def test_further_views_and_examples_beside_change_nothing_else():
    plain = read()
    for held in (examples(True), examples(beside=unlabelled()), more()):
        equal([{name: batch[name] for name in plain[0]} for batch in read(held)], plain)


def test_views_are_crops_of_the_same_pictures_which_are_decoded_once():
    for batch in read(examples(True)):
        assert batch["image_view1"].shape == (6, 8, 6, 3) and batch["image_view2"].shape == (6, 4, 3, 3)
        assert batch["image_view2"].dtype == np.uint8 and not np.array_equal(batch["image"], batch["image_view1"])

    class Counted(Source):
        reads = 0

        def __getitem__(self, row):
            Counted.reads += 1
            return super().__getitem__(row)

    source = Counted()
    flipped = Pictures(source, transforms=(("resize", {}), ("flip", {"p": 1.0})))
    held = Examples({"image": Pictures(source), "image_view1": flipped})
    for batch in read(held, transform=(("resize", {}),), num_steps=4):
        assert np.array_equal(batch["image"][:, :, ::-1], batch["image_view1"])
    assert Counted.reads == 24


def test_examples_beside_have_epochs_and_an_order_of_their_own():
    batches = read(examples(beside=unlabelled(transforms=(("resize", {}),))))
    rows = np.concatenate([batch["unlabelled_row"] for batch in batches])
    images = np.concatenate([batch["unlabelled_image"] for batch in batches])
    assert np.array_equal(images, np.stack([Gallery()[row] for row in rows])) and images.dtype == np.uint8
    epochs = rows[:170].reshape(10, 17)
    assert all(sorted(epoch) == list(range(17)) for epoch in epochs) and len({e.tobytes() for e in epochs}) == 10
    assert all(batch["unlabelled_mask"].all() and len(batch["unlabelled_mask"]) == 12 for batch in batches)
    same = read(examples(beside=unlabelled(Source(), 6)))
    assert not np.array_equal(same[0]["row"], same[0]["unlabelled_row"])
    assert not np.array_equal(read(examples(beside=unlabelled()), seed=4)[0]["unlabelled_row"], rows[:12])
    with pytest.raises(InputError, match="unlabelled batch_size is 0"):
        read(examples(beside=unlabelled(batch_size=0)))


def outfits():
    """Four pictures per example, some missing, one picture of another source, tokens, and clicks beside."""
    rng = np.random.default_rng(5)
    rows = np.where(rng.random((N, 4)) < 0.3, -1, rng.integers(0, N, (N, 4)))
    single = np.where(np.arange(N) % 5 == 0, -1, np.arange(N) % 17)
    clicks = {"photo": Pictures(Gallery(), image_size=(3, 3)), "tokens": columns()["label_ids"].take(np.arange(17))}
    return Examples(
        {
            "items": Pictures(Source(), rows),
            "model": Pictures(Gallery(), single, transforms=(("resize", {}),), image_size=(6, 5)),
            "tokens": columns()["label_ids"],
            "price": np.arange(N, dtype=np.float32)[:, None] * np.float32([1, 2]),
        },
        beside={"clicks": Examples(clicks, batch_size=4)},
    )


def test_several_pictures_per_example_missing_ones_black_and_masked():
    held = outfits()
    for batch in read(held, transform=(("resize", {}),), image_size=(6, 5)):
        assert batch["items"].shape == (6, 4, 6, 5, 3) and batch["items_mask"].shape == (6, 4)
        assert batch["clicks_photo"].shape == (4, 3, 3, 3) and batch["clicks_tokens_mask"].shape[0] == 4
        assert batch["clicks_mask"].all() and batch["price"].dtype == np.float32
        for i, row in enumerate(batch["row"]):
            for k, one in enumerate(held.columns["items"].rows[row]):
                assert batch["items_mask"][i, k] == (one >= 0)
                assert np.array_equal(batch["items"][i, k], Source()[one] if one >= 0 else np.zeros((6, 5, 3)))
            one = held.columns["model"].rows[row]
            assert batch["model_mask"][i] == (one >= 0)
            assert np.array_equal(batch["model"][i], Gallery()[one] if one >= 0 else np.zeros((6, 5, 3)))


@pytest.mark.parametrize("make", [more, outfits])
def test_the_position_of_every_column_is_the_step_for_any_threads_workers_and_processes(make):
    whole, beside = read(make()), next(iter(make().beside))
    equal(read(make(), start_step=4), whole[4:])
    equal(read(make(), num_steps=18)[:15], whole)
    equal(read(make(), num_threads=4), whole)
    equal(read(make(), num_threads=1, num_workers=2, start_step=3), whole[3:])
    share = make().beside[beside].batch_size // 4
    parts = [
        read(
            make(),
            places=[2 * p, 2 * p + 1],
            beside_places={beside: range(share * p, share * (p + 1))},
            start_step=1,
        )
        for p in range(4)
    ]
    equal(joined(parts, 6, beside, 4 * share), whole[1:])


@pytest.mark.parametrize("make", [more, outfits])
def test_a_batch_of_zeros_has_every_column(make):
    zeros, batch = pipeline.zeros(make(), (8, 6)), read(make())[0]
    assert zeros.keys() == batch.keys()
    for name, value in zeros.items():
        assert value.shape == (1, *batch[name].shape[1:]) and value.dtype == batch[name].dtype, name
        assert (value == (value.dtype == bool)).all()
    of_others = pipeline.names_beside(make())
    assert of_others == [name for name in batch if name.startswith(next(iter(make().beside)))]


READER = """
import multiprocessing, sys
import numpy as np
from retrieval_jax.data import pipeline
from retrieval_jax.data.examples import Examples, Pictures
if __name__ == "__main__":
    examples = Examples({"image": Pictures(np.zeros((9, 4, 4, 3), np.uint8))})
    batches = pipeline.train_batches(examples, transform=(("resize", {}),), seed=0, image_size=(4, 4), batch_size=2,
                                     num_steps=10**9, num_threads=1, num_workers=2)
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
