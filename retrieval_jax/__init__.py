"""Product retrieval in JAX: from weak labels in titles to a scored visual search."""

__version__ = "0.4.0.dev0"
