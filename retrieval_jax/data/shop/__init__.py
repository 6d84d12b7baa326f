"""The embedded catalogue: a shop that is drawn, worded and visited by shoppers, from a seed."""
