import pytest

from retrieval_jax.settings import base, sizes
from retrieval_jax.workdir import config_files

GIB = 2**30


@pytest.mark.parametrize(
    "titles, value", [(0, 2), (30, 2), (60, 3), (150, 5), (400, 8), (1000, 13), (5000, 28), (5625, 30), (10**6, 30)]
)
def test_the_threshold_grows_with_the_titles_up_to_the_published_one(titles, value):
    found, reason = sizes.threshold(titles)
    assert found == value and f"{titles:,} titles" in reason


@pytest.mark.parametrize(
    "examples, batch_size, epochs",
    [
        (1, 1, 200),
        (24, 16, 134),
        (30, 16, 107),
        (60, 16, 100),
        (400, 16, 44),
        (1000, 16, 18),
        (5000, 64, 14),
        (10000, 128, 14),
    ]
    + [(30000, 128, 6), (10**6, 128, 6)],
)
def test_small_catalogues_get_small_batches_and_many_epochs(examples, batch_size, epochs):
    found = {name: value for name, (value, _) in sizes.training(examples).items()}
    assert found == {"batch_size": batch_size, "epochs": epochs, "warmup_epochs": round(0.05 * epochs, 3)}
    assert all(reason for _, reason in sizes.training(examples).values())


def test_given_values_stay_and_the_others_follow_them():
    found = sizes.training(1000, batch_size=100, warmup_epochs=0.0)
    assert found["batch_size"] == (100, "") and found["warmup_epochs"] == (0.0, "")
    assert found["epochs"][0] == 100 and "1,000 steps of 100" in found["epochs"][1]


@pytest.mark.parametrize("listings", [1, 2, 30, 60, 150, 1000, 5000, 30000, 100000, 10**6])
@pytest.mark.parametrize("side, memory, cores, flops", [(1200, 8, 2, 0.0), (80, 2, 1, 0.0), (500, 80, 16, 4e14)])
def test_a_proposal_is_for_minutes_and_fits(listings, side, memory, cores, flops):
    found = sizes.propose(listings, listings, side, memory * GIB, cores, flops=flops)
    values = {name: value for name, (value, _) in found.settings.items()}
    assert found.seconds <= 60 * 60
    assert 1 <= values["train.batch_size"] <= 128 and values["train.epochs"] > 0
    assert values["data.image_size"][0] <= max(64, side)
    assert values["train.num_threads"] <= cores
    assert all(reason and not reason.endswith(".") and "\n" not in reason for _, reason in found.settings.values())
    steps = round(values["train.epochs"] * listings / values["train.batch_size"])
    assert not sizes.too_few(steps, values["train.batch_size"], 0, values["train.epochs"], warm=False)
    config = base.defaults()  # every value has the type of its setting
    config.update_from_flattened_dict(values)
    assert {name: config_files.get(config, name) for name in values} == values


def test_a_laptop_with_little_memory_gets_a_smaller_batch():
    small, large = (sizes.propose(10**5, 10**5, 224, memory, 2) for memory in (GIB // 8, 16 * GIB))
    assert small.settings["train.batch_size"][0] < large.settings["train.batch_size"][0] == 128
    assert "0.1 GiB of memory" in small.settings["train.batch_size"][1]


def test_too_few_steps_are_named_with_what_to_change():
    said = sizes.too_few(12, 32, 194, 1.0, warm=False)
    assert said.startswith("12 steps of 32 for 194 labels are too few") and "config.train.epochs to 17 or more" in said
    assert "public weights" in said and "public weights" not in sizes.too_few(12, 32, 194, 1.0, warm=True)
    assert not sizes.too_few(1094, 64, 194, 14.0, warm=False)
    assert sizes.too_few(300, 16, 5000, 1.0, warm=False)  # a class is hardly ever shown
    assert not sizes.too_few(50, 16, 0, 1.0, warm=True)
