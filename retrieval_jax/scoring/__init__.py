"""Rankings and their scores: truth, metrics, confidence intervals, slices, tables."""
