"""Every config against its golden dump: a change of any run shows as a diff.

After an intended change, write the dumps again: python tests/test_configs.py --write
"""

import difflib
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from retrieval_jax import configs, workdir  # noqa: E402
from retrieval_jax.errors import InputError  # noqa: E402
from retrieval_jax.settings import arguments, base, tasks  # noqa: E402
from retrieval_jax.workdir import command_line, config_files  # noqa: E402

GOLDEN = ROOT / "tests" / "golden" / "configs"
FILES = sorted((ROOT / "configs").glob("*.py"))
CASES = {workdir.default_name(file.stem, arg): (file, arg) for file in FILES for arg in (None, "runlocal")}


def dump(config) -> str:
    """Returns one sorted line `key = value` per setting."""
    lines = []
    for name in config_files.setting_names(config):
        value = config_files.get(config, name)
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
        f"{file.name} changed. If that is intended, run `python tests/test_configs.py --write` and commit "
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
    assert config.name == file.stem
    for member in workdir.members(config):
        command_line.load_member(member, file.parent)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_docstring_tells_hardware_and_expected_score(file):
    found = configs.about(file)
    assert found["about"].endswith((".", ":")) and len(found["about"]) > 30
    lines = file.read_text().splitlines()
    assert (
        sum(line.startswith("Hardware: ") for line in lines)
        == sum(line.startswith("Expected: ") for line in lines)
        == 1
    )
    assert found["hardware"] and found["expected"]


def test_the_list_of_experiments_has_them_all(capsys):
    configs.main(type("Given", (), {"name": None}))
    out = capsys.readouterr().out
    assert all(f"\n{file.stem}\n" in f"\n{out}" for file in FILES)
    assert "quickstart\n    The embedded catalogue, end to end.\n    two CPU cores, about 7 minutes\n" in out
    assert "expected: 18.7 ± 1.4 % MAR@10 capped (cosine)" in out
    configs.main(type("Given", (), {"name": "fashion_best"}))
    assert "image-title contrast" in capsys.readouterr().out


def test_argument_is_parsed_and_a_typo_lists_near_names():
    arg = arguments.parse("runlocal,members=2,scale=0.5", members=1, scale=1.0, variant="small")
    assert (arg.runlocal, arg.members, arg.scale, arg.variant) == (True, 2, 0.5, "small")
    assert not arguments.parse("").runlocal
    with pytest.raises(InputError, match="did you mean members"):
        arguments.parse("member=2", members=1)
    with pytest.raises(InputError, match="members must be a whole number, not 'two'"):
        arguments.parse("members=two", members=1)
    with pytest.raises(InputError, match="did you mean runlocal"):
        command_line.load_config(ROOT / "configs" / "quickstart.py", "runlocl")
    with pytest.raises(InputError, match="no loss named 'sofmax'; did you mean softmax"):
        command_line.load_config("quickstart", "loss=sofmax")


def test_the_best_fashion_config_is_what_the_ablation_measured():
    best = command_line.load_config(ROOT / "configs" / "fashion_best.py")
    measured = command_line.load_config(
        ROOT / "configs" / "fashion_ablation.py", "change=titles+bands+multi_scale,budget=double"
    )
    for config in (best, measured):  # evaluation during training, and defaults spelt out, change no number
        config.train.eval_every_epochs = 0.0
        config.train.model.kwargs = {"layer_scale": 1.0, "pool_stages": (1, 2, 3)}
    for block in ("data", "mine", "train"):
        assert best[block] == measured[block]
    assert best.embed.views == measured.embed.views and best.embed.model_kwargs == measured.embed.model_kwargs
    assert best.search == measured.search


def test_a_query_network_like_the_gallerys_gives_vectors_of_its_width():
    gallery = command_line.load_config(ROOT / "configs" / "fashion_pretrained.py")
    query = command_line.load_config("fashion_small_query", "network=same,pictures=runs/there")
    assert query.train.init_from == query.train.task_kwargs.pictures == "runs/there"
    wanted = {**gallery.train.model.kwargs, **gallery.embed.model_kwargs}
    assert {name: query.train.model.kwargs[name] for name in wanted} == wanted
    assert query.data.image_size[0] * 2 == gallery.data.image_size[0]
    options = query.train.task_kwargs
    assert (options.map_hidden, options.map_residual, options.bank, query.train.epochs) == (256, True, 2048, 8.0)


def test_defaults_are_locked_and_the_open_blocks_are_not():
    config = base.defaults()
    with config.unlocked():
        config.train.task_kwargs.words_kwargs = {}  # of other tasks than the default one
        config.train.task_kwargs.joint_kwargs = {}
        config.train.task_kwargs.set_kwargs = {}
    base.lock(config)
    for block in base.OPEN:
        config_files.get(config, block).a_new_key = 1
    for block in ("mine", "train", "train.task_kwargs", "search.query_from", "data"):
        with pytest.raises((KeyError, AttributeError)):
            config_files.get(config, block).a_new_key = 1
    with config.unlocked():
        config.mine.a_new_key = 1
    base.lock(config).data.kwargs.another = 2
    base.without_training(config)
    config.data.kwargs.a_third = 3
    for task in (
        "multilabel",
        "category",
        "image_title",
        "self_supervised",
        "attribute_sequence",
        "regions",
        "compatible",
    ):
        with pytest.raises((KeyError, AttributeError)):
            getattr(tasks, task)().label_smothing = 0.1
    for task in ("masked_tokens", "text_query", "text_picture", "edit", "outfit"):
        with pytest.raises((KeyError, AttributeError)):
            getattr(tasks, task)().vocabluary = 300


START = """from retrieval_jax.settings import base, tasks

def get_config():
    config = base.defaults()
"""
RETURN = "    return config\n"


@pytest.mark.parametrize(
    "text, words",
    [
        (
            START + "    config.mine.treshold = 2\n" + RETURN,
            ["line 5 (config.mine.treshold = 2)", "mean mine.threshold?"],
        ),
        (
            START + "    print(config.mine.treshold)\n" + RETURN,
            ["line 5", "no setting mine.treshold", "mine.threshold?"],
        ),
        (START + "    config.mine.update({'thresholds': 2})\n" + RETURN, ["no setting thresholds", "mine.threshold"]),
        (START + "    config.update_from_flattened_dict({'mne.threshold': 2})\n" + RETURN, ["mean mine.threshold?"]),
        (START + "    config.image_size = (64, 64)\n" + RETURN, ["no setting image_size", "data.image_size"]),
        (START + "    config.mine.threshold = 2.5\n" + RETURN, ["threshold must be a whole number, not 2.5"]),
        (START + "    del config.mine\n" + RETURN, ["locked", "with config.unlocked():"]),
        (START + "    config.data.image_size = 64\n" + RETURN, ["line 5", "write (64, 64)"]),
        (START + "    config.data.image_size = (64,)\n" + RETURN, ["data.image_size is (64,)", "(64, 64)"]),
        (
            START + "    config.embed.image_size = (64, 0)\n" + RETURN,
            ["embed.image_size is (64, 0)", "height and width"],
        ),
        (START + "    config.train.views = ({'image_size': 32},)\n" + RETURN, ["train.views is", "(64, 64)"]),
        (START + "    config.train.task = 'category'\n" + RETURN, ["no option 'category_weight'", "tasks.category()"]),
        (START, ["returned None", "return config"]),
        ("def get_config():\n    return {}\n", ["returned no ConfigDict"]),
        ("import nothing_of_the_kind\n", ["line 1", "ModuleNotFoundError"]),
        ("def get_config(:\n", ["line 1", "invalid syntax"]),
        ("def get_config():\n    return {}['a']\n", ["line 2 (return {}['a'])", "KeyError: a"]),
        ("x = 1\n", ["no function get_config()"]),
    ],
)
def test_a_mistake_in_a_config_file_is_one_sentence(tmp_path, text, words):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        command_line.load_config(file)
    message = str(caught.value)
    assert message.startswith(str(file)) and all(word in message for word in words), message
    assert len(message.splitlines()) == 1


def test_settings_of_ones_own_need_an_explicit_step(tmp_path):
    file = tmp_path / "mine.py"
    lines = [
        "config.data.kwargs = dict(root='here', columns=dict(id='sku'))",
        "config.train.model.kwargs.drop_path = 0.1",
    ]
    lines += ["with config.unlocked():", "    config.mine.of_my_own = 3"]
    file.write_text(START + "".join(f"    {line}\n" for line in lines) + RETURN)
    config = command_line.load_config(file)
    assert config.mine.of_my_own == 3 and config.data.kwargs.columns.id == "sku"
    assert config.is_locked and config.data.kwargs.is_locked


def test_a_configs_package_of_the_users_is_not_in_the_way(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("raise RuntimeError('the wrong package')")
    (tmp_path / "beside.py").write_text("THRESHOLD = 7\n")
    (tmp_path / "mine.py").write_text(
        "import beside\n" + START + "    config.mine.threshold = beside.THRESHOLD\n" + RETURN
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert command_line.load_config("quickstart", "runlocal").name == "quickstart"
    assert command_line.load_config("mine.py").mine.threshold == 7
    assert sys.path == before
    (tmp_path / "old.py").write_text("from configs import common\n")
    with pytest.raises(InputError, match="old.py, line 1 .*the wrong package"):
        command_line.load_config("./old.py")


def test_a_bare_name_is_a_shipped_experiment_and_a_path_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()
    (tmp_path / "quickstart.py").write_text(START + "    config.name = 'mine'\n" + RETURN)
    assert config_files.find("quickstart") == ROOT / "configs" / "quickstart.py"
    assert config_files.find("quickstart.py") == pathlib.Path("quickstart.py")
    assert config_files.find("quickstart", beside=tmp_path) == tmp_path / "quickstart.py"  # a member of one beside it
    assert command_line.load_member("fashion_vit:seed=2", tmp_path).train.seed == 2
    (tmp_path / "shop.py").write_text(START + RETURN)
    with pytest.raises(InputError, match="no experiment named 'shop'.*--config=./shop.py"):
        config_files.find("shop")
    with pytest.raises(InputError, match="configs/quickstart.py does not exist; did you mean quickstart"):
        config_files.find("configs/quickstart.py")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_configs.py --write")
    for old_file in GOLDEN.glob("*.txt"):
        old_file.unlink()
    for case, (config_file, config_arg) in CASES.items():
        (GOLDEN / f"{case}.txt").write_text(dump(command_line.load_config(config_file, config_arg)), encoding="utf-8")
    print(f"wrote {len(CASES)} dumps to {GOLDEN}")
