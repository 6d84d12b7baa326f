"""Configs, and verbs that only write a file, for tests of work directories."""

from ml_collections import ConfigDict

from retrieval_jax import workdir


def make_config(**changed):
    config = ConfigDict(
        {
            "name": "tiny",
            "data": {"source": "synthetic", "kwargs": {"seed": 0}, "image_size": (8, 8)},
            "mine": {"threshold": 5},
            "train": {"learning_rate": 0.1, "transforms": (("flip", {}), ("erasing", {"p": 0.5}))},
            "embed": {"batch_size": 4},
            "search": {"k": 100, "steps": (("whitening", {}),), "members": ()},
            "evaluate": {"ks": (1, 10)},
            "report": {"rows": 3},
        }
    )
    config.update_from_flattened_dict(changed)
    return config


def fake_verb(verb, calls=None):
    def run(config, folder):
        if calls is not None:
            calls.append(verb)
        name = workdir.OUTPUTS[verb][0]
        file = folder / name if "." in name else folder / name / "part-0"
        file.parent.mkdir(exist_ok=True)
        file.write_text('{"stages": []}' if file.suffix == ".json" else verb)
        return {"verb": verb}

    return run


def ensemble_config():
    config = make_config(**{"search.members": ("one", "two:arg")})
    config.mine = config.train = config.embed = None
    return config
