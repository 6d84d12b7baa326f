"""timm's weight files: found, read, written."""
