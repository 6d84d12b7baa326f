"""Shapes for drawing the embedded catalogue: paints, curves in the unit square (x right, y down), brand glyphs."""

import numpy as np

# Paints. MAIN carries the product's colour, pattern and material; the others are plain.
MAIN, SECOND, DARK, LIGHT, METAL, BLACK, WHITE, WOOD, GLASS, GREEN = range(10)
_TURN = np.linspace(0, 2 * np.pi, 33)[:-1]
CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], 1)


def smooth(points, rounds=2):
    """Rounds the corners of a closed polygon [n, 2] (Chaikin's corner cutting)."""
    p = np.asarray(points, float)
    for _ in range(rounds):
        q = np.roll(p, -1, 0)
        p = np.stack([0.75 * p + 0.25 * q, 0.25 * p + 0.75 * q], 1).reshape(-1, 2)
    return p


def mirror(half, x=0.5):
    """Returns the symmetric polygon [2n, 2] of a right half, given as (distance from the axis x, y), top down."""
    p = np.asarray(half, float)
    left = p[::-1] * (-1, 1)
    return np.concatenate([p, left]) + (x, 0)


def ellipse(x, y, rx, ry):
    """Returns an ellipse as a polygon [32, 2]."""
    return CIRCLE * (rx, ry) + (x, y)


def arc(x, y, rx, ry, start, stop):
    """Returns part of an ellipse as an open line [16, 2]; degrees, 0 right, 90 down."""
    t = np.deg2rad(np.linspace(start, stop, 16))
    return np.stack([x + rx * np.cos(t), y + ry * np.sin(t)], 1)


def rect(x0, y0, x1, y1):
    """Returns an upright rectangle [4, 2]."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float)


def rounded(x0, y0, x1, y1, radius):
    """Returns a rectangle with round corners as a polygon [32, 2]."""
    inner = np.sign(CIRCLE) * ((x1 - x0) / 2 - radius, (y1 - y0) / 2 - radius)
    return CIRCLE * radius + inner + ((x0 + x1) / 2, (y0 + y1) / 2)


def line(x0, y0, x1, y1):
    """Returns a straight line [2, 2]."""
    return np.array([(x0, y0), (x1, y1)], float)


def polar(radii, turn=-90):
    """Returns points at equal angles around (0, 0), at these radii, the first one up."""
    t = np.deg2rad(turn + np.arange(len(radii)) * 360 / len(radii))
    return np.stack([np.cos(t), np.sin(t)], 1) * np.asarray(radii)[:, None]


# fmt: off
# Brand glyphs: contours around (0, 0) within radius 1, filled by the even-odd rule.
GLYPHS = {"star": [polar([1, 0.42] * 5)], "ring": [CIRCLE * 0.9, CIRCLE * 0.5], "triangle": [polar([1, 1, 1])],
          "heart": [np.array([(0, 0.95), (-0.95, -0.1), (-0.8, -0.7), (-0.4, -0.8), (0, -0.4), (0.4, -0.8),
          (0.8, -0.7), (0.95, -0.1)])], "cross": [np.array([(-0.3, -0.95), (0.3, -0.95), (0.3, -0.3), (0.95, -0.3),
          (0.95, 0.3), (0.3, 0.3), (0.3, 0.95), (-0.3, 0.95), (-0.3, 0.3), (-0.95, 0.3), (-0.95, -0.3),
          (-0.3, -0.3)])], "diamond": [np.array([(0, -1), (0.65, 0), (0, 1), (-0.65, 0)])],
          "bolt": [np.array([(0.35, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.35, 1), (0.6, -0.2), (0.05, -0.2)])],
          "square": [rect(-0.8, -0.8, 0.8, 0.8)], "crescent": [np.concatenate([arc(0, 0, 0.95, 0.95, 50, 310),
          arc(0.4, 0, 0.65, 0.72, 290, 70)])], "bars": [rect(-0.85, -0.85, -0.4, 0.85),
          rect(-0.22, -0.85, 0.22, 0.85), rect(0.4, -0.85, 0.85, 0.85)],
          "drop": [np.concatenate([[(0, -1)], arc(0, 0.3, 0.65, 0.65, -20, 200)])],
          "arrow": [np.array([(-0.9, -0.3), (0, -0.3), (0, -0.85), (0.95, 0), (0, 0.85), (0, 0.3), (-0.9, 0.3)])],
          "hexagon": [polar([1] * 6), polar([0.5] * 6)], "clover": [CIRCLE * 0.45 + (0, -0.5),
          CIRCLE * 0.45 + (-0.5, 0.3), CIRCLE * 0.45 + (0.5, 0.3)], "hourglass": [np.array([(-0.8, -0.9),
          (0.8, -0.9), (-0.8, 0.9), (0.8, 0.9)])], "target": [CIRCLE * 0.95, CIRCLE * 0.68, CIRCLE * 0.35]}
