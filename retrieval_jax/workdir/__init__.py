"""The work directory: what each verb left there, from which settings and data, and whether it still counts.

See `records` for the files in it, `hashes` for which settings a result depends on, and `freshness` for edited data.
"""

from retrieval_jax.workdir.freshness import Data
from retrieval_jax.workdir.hashes import FIXED_BLOCKS, FREE, read_record, stage_hash, without_free
from retrieval_jax.workdir.layout import (
    OUTPUTS,
    VERBS,
    as_path,
    default_name,
    member_folder,
    members,
    predecessor,
    predecessor_folder,
    smoke_run,
    verbs,
)
from retrieval_jax.workdir.records import (
    done,
    invalidate,
    prepare,
    reason_to_run,
    record,
    refresh,
    require_earlier,
    run_stage,
    write_settings,
)
from retrieval_jax.workdir.settings import changes, plain, read_config

__all__ = [
    "Data",
    "FIXED_BLOCKS",
    "FREE",
    "OUTPUTS",
    "VERBS",
    "as_path",
    "changes",
    "default_name",
    "done",
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
    "refresh",
    "require_earlier",
    "run_stage",
    "smoke_run",
    "stage_hash",
    "verbs",
    "without_free",
    "write_settings",
]
