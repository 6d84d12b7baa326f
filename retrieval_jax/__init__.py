"""Product retrieval in JAX: from weak labels in titles to a scored visual search."""

__version__ = "0.2.0"
