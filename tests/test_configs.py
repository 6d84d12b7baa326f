"""Every config against its golden dump: a change of any run shows as a diff.

After a change that is meant, write the dumps again: python tests/test_configs.py --write
"""

import difflib
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from retrieval_jax import workdir  # noqa: E402
from retrieval_jax.errors import InputError  # noqa: E402
from retrieval_jax.workdir import command_line  # noqa: E402

GOLDEN = ROOT / "tests" / "golden" / "configs"
FILES = sorted(file for file in (ROOT / "configs").glob("*.py") if file.stem not in ("__init__", "common"))
CASES = {workdir.default_name(file.stem, arg): (file, arg) for file in FILES for arg in (None, "runlocal")}


def dump(config) -> str:
    """Returns one sorted line `key = value` per setting."""
    lines = []
    for name in command_line.setting_names(config):
        value = config
        for part in name.split("."):
            value = value[part]
        lines.append(f"{name} = {value.to_dict() if hasattr(value, 'to_dict') else value!r}\n")
    return "".join(sorted(lines))


@pytest.mark.parametrize("name", CASES)
def test_config_equals_its_golden_dump(name):
    file, arg = CASES[name]
    golden = GOLDEN / f"{name}.txt"
    old = golden.read_text(encoding="utf-8") if golden.exists() else ""
    new = dump(command_line.load_config(file, arg))
    diff = "".join(difflib.unified_diff(old.splitlines(True), new.splitlines(True), "golden", "now", n=0))
    assert not diff, (
        f"{file.name} changed. If that is meant, run `python tests/test_configs.py --write` and commit "
        f"the dumps.\n{diff}"
    )


def test_every_dump_has_a_config():
    stale = sorted(file.name for file in GOLDEN.glob("*.txt") if file.stem not in CASES)
    assert not stale, f"no config makes {stale}: run `python tests/test_configs.py --write`"


@pytest.mark.parametrize("name", CASES)
def test_config_is_json_able_and_members_exist(name):
    file, arg = CASES[name]
    config = command_line.load_config(file, arg)
    workdir.plain(config)
    assert config.name
    for member in workdir.members(config):
        stem, _, member_arg = member.partition(":")
        command_line.load_config(file.parent / f"{stem}.py", member_arg or None)


def test_argument_is_parsed_and_a_typo_lists_near_names():
    common = _common()
    arg = common.parse_arg("runlocal,members=2,scale=0.5", members=1, scale=1.0, variant="small")
    assert (arg.runlocal, arg.members, arg.scale, arg.variant) == (True, 2, 0.5, "small")
    assert not common.parse_arg("").runlocal
    with pytest.raises(ValueError, match="did you mean members"):
        common.parse_arg("member=2", members=1)
    with pytest.raises(ValueError, match="members wants int, not 'two'"):
        common.parse_arg("members=two", members=1)
    with pytest.raises(InputError, match="did you mean runlocal"):
        command_line.load_config(ROOT / "configs" / "quickstart.py", "runlocl")


def test_the_best_fashion_config_is_what_the_ablation_measured():
    best = command_line.load_config(ROOT / "configs" / "fashion_best.py")
    measured = command_line.load_config(
        ROOT / "configs" / "fashion_ablation.py", "change=titles+bands+multi_scale,budget=double"
    )
    for config in (best, measured):  # evaluation on the way, and fields at their default, change no number
        config.train.eval_every_epochs = 0.0
        config.train.model.kwargs = {"layer_scale": 1.0, "pool_stages": (1, 2, 3)}
    for block in ("data", "mine", "train"):
        assert best[block] == measured[block]
    assert best.embed.views == measured.embed.views and best.embed.model_kwargs == measured.embed.model_kwargs
    assert best.search == measured.search


def _common():
    command_line.load_config(ROOT / "configs" / "quickstart.py")
    from configs import common

    return common


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_configs.py --write")
    for old_file in GOLDEN.glob("*.txt"):
        old_file.unlink()
    for case, (config_file, config_arg) in CASES.items():
        (GOLDEN / f"{case}.txt").write_text(dump(command_line.load_config(config_file, config_arg)), encoding="utf-8")
    print(f"wrote {len(CASES)} dumps to {GOLDEN}")
