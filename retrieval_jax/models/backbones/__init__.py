"""Networks from pictures to embeddings; the only folder of models that is looked up by name."""
