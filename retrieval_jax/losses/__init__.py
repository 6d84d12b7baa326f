"""Losses: pure functions of logits and targets, one number a picture, in optax's style."""
