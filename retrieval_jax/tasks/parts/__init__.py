"""What several tasks are put together from: options, the network with its heads, and the losses of those heads."""

from retrieval_jax.tasks.parts.network import Network, network
from retrieval_jax.tasks.parts.options import OPTIONS, options
from retrieval_jax.tasks.parts.supervision import Supervision, mixed, supervision

__all__ = ["OPTIONS", "Network", "Supervision", "mixed", "network", "options", "supervision"]
