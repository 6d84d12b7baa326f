"""The embedded catalogue: a shop with pictures, titles and simulated shoppers, all computed from a seed."""
