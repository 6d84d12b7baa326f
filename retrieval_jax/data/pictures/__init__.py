"""Pictures from file bytes to network input: sources, decoding, transforms."""
