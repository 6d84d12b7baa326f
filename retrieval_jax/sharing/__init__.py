"""Exported models for others: what a run found out about its search, the model card, and the hub."""
