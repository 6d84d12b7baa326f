"""Product retrieval in JAX: from weak labels in titles to a scored visual search."""
