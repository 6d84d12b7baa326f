"""The search service: a JSON API and the search page over finished runs and exported models (`retrieval-jax serve`)."""
