"""What the loop in train.py is made of: the update step, optimiser, sharding, checkpoints, guards, telemetry."""
