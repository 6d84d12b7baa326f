"""timm's weight files: finding, reading and writing them, and matching their tensors."""
