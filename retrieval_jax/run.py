"""Runs a whole experiment, in one process: mine, train, embed, search, evaluate, report.

    python -m retrieval_jax.run --config=configs/quickstart.py

Verbs whose result is complete and unchanged are skipped; each of the others says why it runs. Edited data counts: what
does not depend on a network runs again, what a network has learned from is refused. An ensemble's members, the run that
a training starts from and the runs that a side of the search comes from run first, each in its own work directory
beside this one's.

Several processes (launch/ starts them) train and embed together; the first does all else, and the others wait.
"""

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("run")

import copy
import importlib
import time

from retrieval_jax import paths, workdir
from retrieval_jax.errors import InputError
from retrieval_jax.files import remote
from retrieval_jax.workdir import command_line, preflight, provenance, sides

_TOGETHER = ("train", "embed")  # verbs that need the devices of all processes


def run(config, folder, config_folder="configs") -> dict:
    """Runs every verb of an experiment that is not complete and unchanged.

    Args:
      config: the settings.
      folder: the work directory; created when missing.
      config_folder: of the config files of runs that go first.

    Returns:
      The records of the verbs that ran, by verb.

    Raises:
      InputError: the catalogue is gone, the directory holds results of other data, mine or train settings, the data
        that a network there learned from was edited, or a verb refuses its input.
    """
    # Imported here, as the verbs are: a run that only searches again does not wait for JAX.
    with importlib.import_module("retrieval_jax.data.loading").shared():
        walk = _prepared(config, folder, config_folder)
        for _, _, place, data in walk:
            if missing := data.missing():
                raise InputError(
                    f"{missing[0]} no longer exists, so nothing shows whether the results in {place} are still those "
                    "of the catalogue: put it back, or give its new place; single verbs, such as search, still use "
                    "what was made from it"
                )
        preflight.together([one for _, *each in walk for one in preflight.due(*each, _module)])
        for name, *each in walk[:-1]:
            print(f"=== first: {name}", flush=True)
            _run(*each)
        return _run(*walk[-1][1:])


def _prepared(config, folder, config_folder, name="") -> list[tuple]:
    """Returns (name, config, work directory, data) of every run in order, this one last; checks every directory."""
    folder = workdir.prepare(config, folder)
    walk = []
    for member, member_config in earlier(config, config_folder).items():
        walk += _prepared(member_config, workdir.member_folder(folder, member), config_folder, member)
    return [*walk, (name, config, folder, workdir.Data(config, folder))]


def _run(config, folder, data) -> dict:
    start = time.monotonic()
    print(f"=== {config.get('name', folder.name)}: {folder}", flush=True)
    done, data = {}, workdir.Data(config, folder, data)
    for verb in workdir.verbs(config):
        reason = workdir.reason_to_run(config, folder, verb, data)
        while reason is not None and verb not in _TOGETHER and not provenance.is_first_process():
            time.sleep(1.0)  # until the first process, which shares the folder or its URL with this one, is done
            remote.pull(folder)
            reason = workdir.reason_to_run(config, folder, verb, data)
        if reason is None:
            workdir.refresh(folder, verb, data)
            print(f"{verb}: complete, skipped", flush=True)
            continue
        print(f"{verb}: runs, because {reason}", flush=True)
        done[verb] = workdir.run_stage(config, folder, verb, _module(verb).run, data)
        print(workdir.done(done[verb]), flush=True)

    if not done and provenance.is_first_process():
        workdir.write_settings(config, folder)  # of those that change no result
        remote.try_to_push(folder)  # what an earlier run could not send
    scores = folder / "metrics.json"
    if "evaluate" not in done and scores.exists():  # evaluate prints its own table when it runs
        written, baselines, tables = (
            importlib.import_module(f"retrieval_jax.scoring.{name}") for name in ("written", "baselines", "tables")
        )
        tables.print_scores(written.stages(folder))
        if sentence := workdir.smoke_run(config) or baselines.sentence(written.better_without_training(folder)):
            print(sentence)
    print(f"report: {remote.url(folder / 'report.html') or folder / 'report.html'}")
    print(f"ran {', '.join(done) or 'nothing'} in {time.monotonic() - start:.1f} s", flush=True)
    if (folder / "embeddings" / sides.of(config)["gallery"].folder / "gallery").exists():
        print(f"next: {paths.command('serve', f'--workdir={remote.url(folder) or folder}')}", flush=True)
    return done


def _module(verb):
    return importlib.import_module(f"retrieval_jax.{verb}")


def earlier(config, config_folder) -> dict:
    """Returns the runs that go first, {"name" or "name:arg": its config}.

    They are members of an ensemble, the run that a training starts from, and the runs that a side of the search comes
    from. All of them share this config's catalogue, wherever it lies; each sees pictures of its own size.

    Args:
      config: the settings.
      config_folder: where to look for their config files first.

    Raises:
      InputError: there is no such config, or it is an ensemble itself.
    """
    members = (*workdir.members(config), *filter(None, [workdir.predecessor(config)]), *sides.other_runs(config))
    configs = {member: command_line.load_member(member, config_folder) for member in members}
    for member, member_config in configs.items():
        if workdir.members(member_config):
            raise InputError(f"{member} is an ensemble itself; list its members instead")
        with member_config.unlocked():
            data = {**copy.deepcopy(config.data), "image_size": member_config.data.image_size}
            member_config.data = type(config.data)(data)
    return configs


def main(given) -> None:
    """Runs the command line.

    Args:
      given: its options, as `retrieval_jax.__main__` parses them.
    """
    if given.estimate:
        workdir.prepare(given.config, given.workdir)
        configs = earlier(given.config, given.config_file.parent)
        folders = {name: workdir.member_folder(given.workdir, name) for name in configs}
        estimate = importlib.import_module("retrieval_jax.estimate")
        estimate.show({**configs, given.config.name: given.config}, {**folders, given.config.name: given.workdir})
        return
    run(given.config, given.workdir, given.config_file.parent)
