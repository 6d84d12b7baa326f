"""The work directory: what each verb left there, from which settings, and whether it still counts.

    config.json         the settings this directory was made with
    stages/<verb>.json  one record per finished verb: its hash, the settings behind it, outputs, times, summary
    run.json            commit, versions, hardware and times of the whole run

A verb's hash chains the ones before it, so a changed setting makes every later verb stale and leaves the earlier ones
alone. Nothing here imports JAX: a machine that only searches and evaluates does not need it.
"""

from retrieval_jax.workdir.hashes import FIXED_BLOCKS, OF_THE_MACHINE, read_record, stage_hash
from retrieval_jax.workdir.layout import (
    OUTPUTS,
    VERBS,
    as_path,
    default_name,
    member_folder,
    members,
    predecessor,
    predecessor_folder,
    verbs,
)
from retrieval_jax.workdir.records import (
    invalidate,
    prepare,
    reason_to_run,
    record,
    require_earlier,
    run_stage,
)
from retrieval_jax.workdir.settings import changes, plain, read_config

__all__ = [
    "FIXED_BLOCKS",
    "OF_THE_MACHINE",
    "OUTPUTS",
    "VERBS",
    "as_path",
    "changes",
    "default_name",
    "invalidate",
    "member_folder",
    "members",
    "plain",
    "predecessor",
    "predecessor_folder",
    "prepare",
    "read_config",
    "read_record",
    "reason_to_run",
    "record",
    "require_earlier",
    "run_stage",
    "stage_hash",
    "verbs",
]
