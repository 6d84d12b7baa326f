"""Vectors with their ids: in memory, on disk as memory-mapped shards, and written by several processes."""

from retrieval_jax.embeddings.folder import (
    FORMAT,
    Embeddings,
    allocate,
    as_stored,
    check_dtype,
    computed,
    read_info,
    write,
)
from retrieval_jax.embeddings.ids import Ids, places
from retrieval_jax.embeddings.vectors import Computed, Shards

__all__ = [
    "FORMAT",
    "Computed",
    "Embeddings",
    "Ids",
    "Shards",
    "allocate",
    "as_stored",
    "check_dtype",
    "computed",
    "places",
    "read_info",
    "write",
]
