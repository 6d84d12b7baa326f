"""Where listings come from and how they become batches."""
