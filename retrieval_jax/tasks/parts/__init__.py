"""What several tasks are put together from: options, examples, the network with its heads, and the heads' losses."""

from retrieval_jax.tasks.parts.columns import columns, title_labels
from retrieval_jax.tasks.parts.examples import listings, mined, unlabelled
from retrieval_jax.tasks.parts.network import Network, network
from retrieval_jax.tasks.parts.options import CATEGORY, HEADS, TITLES, options
from retrieval_jax.tasks.parts.supervision import Supervision, mixed, supervision
from retrieval_jax.tasks.parts.text import TEXT, Tower, tokenizer, tower, words_tower

__all__ = [
    "CATEGORY",
    "HEADS",
    "TEXT",
    "TITLES",
    "Network",
    "Supervision",
    "Tower",
    "columns",
    "listings",
    "mined",
    "mixed",
    "network",
    "options",
    "supervision",
    "title_labels",
    "tokenizer",
    "tower",
    "unlabelled",
    "words_tower",
]
