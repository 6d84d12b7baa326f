"""Building blocks of the loop in train.py: update step, optimiser, sharding, checkpoints, guards, telemetry."""
