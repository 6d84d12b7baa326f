"""Networks from pictures to embeddings; the only folder of models whose files are looked up by name."""
