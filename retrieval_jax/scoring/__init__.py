"""Rankings and how they are scored: ground truth, metrics, confidence intervals, slices, tables."""
