"""Shapes of the home and leisure categories of the embedded catalogue: one function per leaf.

Each function takes (d, a, b): d, eight numbers in [0, 1) for the product's proportions, and whether it has its optional
parts 1 and 2 (see wording.CATEGORIES). It returns the layers, back to front, and the position of the brand's glyph
(x, y, radius), in the unit square. A layer is (points [n, 2], paint, width): width 0 fills the polygon, any other draws
a line of that width.
"""

import numpy as np

from retrieval_jax.data.shop.shapes import (
    BLACK,
    DARK,
    GREEN,
    LIGHT,
    MAIN,
    METAL,
    SECOND,
    WHITE,
    WOOD,
    arc,
    ellipse,
    line,
    mirror,
    rect,
    rounded,
    smooth,
)

# fmt: off


def mug(d, a, b):
    w, h, taper = 0.2 + 0.06 * d[0], 0.38 + 0.2 * d[1], 0.05 * d[2]
    top = 0.86 - h
    layers = [(line(0.5 - w * 0.2, top + 0.03, 0.36 - w * 0.6, top - 0.14), METAL, 0.03)] if b else []
    layers += [(arc(0.48 + w, top + h * 0.48, 0.12 + 0.05 * d[3], h * (0.2 + 0.13 * d[4]), -95, 95),
               SECOND if d[5] > 0.6 else DARK, 0.05), (np.concatenate([[(0.47 - w, top), (0.47 + w, top)],
               arc(0.47, 0.86, w - taper, 0.05, 0, 180)]), MAIN, 0), (ellipse(0.47, top, w, 0.05), LIGHT, 0),
               (ellipse(0.47, top + 0.005, w * 0.85, 0.035), DARK, 0)]
    layers += [(line(0.475 - w, 0.78, 0.465 + w, 0.78), SECOND, 0.05)] if a else []
    return layers, (0.44, top + h * 0.5, 0.1)


def teapot(d, a, b):
    w, h = 0.2 + 0.05 * d[0], 0.18 + 0.06 * d[1]
    y = 0.6
    layers = [(smooth([(0.5 - w * 0.7, y + h * 0.6), (0.46 - w, y), (0.36 - w, y - 0.2 - 0.06 * d[2]),
              (0.43 - w, y - 0.2 - 0.06 * d[2]), (0.56 - w, y - 0.06)]), DARK, 0),
              (arc(0.48 + w, y - 0.02, 0.13 + 0.03 * d[3], h * 0.75, -100, 100), SECOND if d[4] > 0.6 else DARK,
              0.05), (ellipse(0.5, y, w, h), MAIN, 0), (rect(0.5 - w * 0.5, y + h * 0.88, 0.5 + w * 0.5,
              y + h + 0.03), DARK, 0), (arc(0.5, y - h * 0.86, w * 0.55, 0.07 + 0.05 * d[5], 180, 360),
              SECOND if d[4] > 0.3 else LIGHT, 0), (ellipse(0.5, y - h * 0.86 - 0.09 - 0.05 * d[5],
              0.03 + 0.02 * d[6], 0.035), METAL if d[6] > 0.5 else DARK, 0)]
    layers += [(arc(0.5, y, w, h * 0.5, 20, 160), SECOND, 0.04)] if a else []
    layers += [(arc(0.5 + w * 0.5, y - h * 0.9, w * 0.5, 0.1, 0, 180), METAL, 0.018)] if b else []
    return layers, (0.5, y - 0.01, 0.095)


def bottle(d, a, b):
    w, shoulder, neck = 0.12 + 0.06 * d[0], 0.3 + 0.1 * d[1], 0.05 + 0.03 * d[2]
    layers = [(line(0.5, 0.14, 0.56, 0.03), SECOND, 0.03)] if b else []
    layers += [(smooth(mirror([(neck, 0.16), (neck, shoulder - 0.08), (w, shoulder), (w, 0.94), (w * 0.5, 0.94)]),
               2), MAIN, 0), (rect(0.49 - neck, 0.1, 0.51 + neck, 0.2), SECOND if d[3] > 0.5 else METAL, 0)]
    layers += [(arc(0.5 + w, 0.5, 0.1 + 0.04 * d[5], 0.22, -100, 100), DARK, 0.035)] if a else []
    layers += [(rect(0.5 - w, 0.84, 0.5 + w, 0.88), SECOND, 0)] if d[4] > 0.5 else []
    return layers, (0.5, 0.52 + 0.12 * d[7], 0.09)


def pan(d, a, b):
    r, x = 0.26 + 0.04 * d[0], 0.37
    layers = [(line(x + r * 0.6, 0.6 - r * 0.6, 0.9, 0.16 + 0.06 * d[1]),
              WOOD if d[2] > 0.6 else SECOND if d[2] > 0.3 else BLACK, 0.05 + 0.025 * d[3]),
              (ellipse(x, 0.6, r, r), MAIN, 0)]
    layers += [(ellipse(x, 0.6, r * (0.8 + 0.1 * d[4]), r * (0.8 + 0.1 * d[4])), DARK, 0.014)]
    layers += ([(ellipse(x, 0.6, r * 0.74, r * 0.74), LIGHT, 0), (ellipse(x, 0.6 - r * 0.5, 0.04, 0.04), BLACK,
               0)] if a else [])
    layers += [(ellipse(0.88, 0.19 + 0.06 * d[1], 0.045, 0.045), METAL, 0.025)] if b else []
    return layers, (x, 0.62, 0.1)


def lamp(d, a, b):
    w, top, h, foot = 0.1 + 0.09 * d[0], 0.24 + 0.06 * d[1], 0.26 + 0.1 * d[2], 0.12 + 0.08 * d[3]
    y = 0.1 + h
    shade = mirror([(w, 0.1), (top, y)])
    layers = [(line(0.5, y, 0.5, 0.88), WOOD if d[4] > 0.6 else METAL if d[4] > 0.3 else SECOND, 0.03 + 0.05 * d[5]),
              (smooth(mirror([(0.03, 0.82), (foot, 0.9), (foot, 0.93)]), 1), SECOND if d[6] > 0.4 else DARK, 0)]
    layers += [(ellipse(0.5, 0.68, 0.07, 0.09), SECOND, 0)] if d[5] > 0.6 else []
    layers += [(shade, MAIN, 0)]
    layers += [(ellipse(x, y, 0.03, 0.035), SECOND, 0) for x in np.linspace(0.52 - top, 0.48 + top, 8)] if a else []
    layers += ([(line(0.5 + top * 0.6, y, 0.5 + top * 0.6, y + 0.16), METAL, 0.016),
               (ellipse(0.5 + top * 0.6, y + 0.18, 0.025, 0.025), METAL, 0)] if b else [])
    return layers, (0.5, 0.1 + h * 0.56, 0.09)


def pendant(d, a, b):
    w, y, h = 0.24 + 0.12 * d[0], 0.42 + 0.08 * d[1], 0.3 + 0.08 * d[2]
    shade = (ellipse(0.5, y + h * 0.5, w * 0.9, h * 0.62) if b else np.concatenate([mirror([(0.05 + 0.06 * d[3],
             y)])[::-1], arc(0.5, y + h, w, h * (0.3 + 0.5 * d[4]), 0, 0)[:1],
             [(0.5 + w, y + h + 0.03), (0.5 - w, y + h + 0.03), (0.5 - w, y + h)]]))
    layers = [(line(0.5, 0.03, 0.5, y), BLACK, 0.018), (ellipse(0.5, y + h + 0.04, 0.08, 0.07), WHITE, 0),
              (rect(0.46 - 0.03 * d[5], y - 0.1, 0.54 + 0.03 * d[5], y + 0.02), METAL if d[6] > 0.5 else SECOND, 0),
              (shade, MAIN, 0)]
    layers += ([(ellipse(x, y + h, 0.03, 0.04), SECOND, 0) for x in np.linspace(0.54 - w * 0.9, 0.46 + w * 0.9,
               7)] if a else [])
    return layers, (0.5, y + h * 0.55, 0.09)


def chair(d, a, b):
    w, back, y = 0.17 + 0.05 * d[0], 0.08 + 0.1 * d[1], 0.54 + 0.04 * d[2]
    legs = DARK if d[3] < 0.4 else METAL if d[3] < 0.7 else WOOD
    layers = [(line(0.5 + s * (w - 0.02), y, 0.5 + s * (w + 0.05 * d[4]), 0.93), legs, 0.035) for s in (-1, 1)]
    layers += [(line(0.5 + s * (w - 0.1), y, 0.5 + s * (w - 0.12), 0.86), legs, 0.03) for s in (-1, 1)]
    layers += [(smooth([(0.5 - w, back), (0.5, back - 0.03), (0.5 + w, back), (0.5 + w * 0.95, y),
               (0.5 - w * 0.95, y)], 1 + int(2 * d[5])), MAIN, 0), (rounded(0.44 - w, y - 0.04, 0.56 + w, y + 0.06,
               0.035), SECOND if b else DARK, 0)]
    layers += ([(np.array([(0.5 + s * w, y - 0.17), (0.5 + s * (w + 0.08), y - 0.17), (0.5 + s * (w + 0.08), y)]),
               legs, 0.04) for s in (-1, 1)] if a else [])
    layers += ([(line(0.5 + s * w * 0.45, back + 0.1, 0.5 + s * w * 0.45, y - 0.07), DARK, 0.02) for s in (-1,
               1)] if d[6] > 0.5 else [])
    return layers, (0.5, back + (y - back) * 0.45, 0.09)


def sofa(d, a, b):
    w, back, arm = 0.36 + 0.06 * d[0], 0.3 + 0.08 * d[1], 0.06 + 0.05 * d[2]
    layers = [(line(0.5 + s * (w - 0.06), 0.76, 0.5 + s * (w - 0.04), 0.86), WOOD if d[3] > 0.5 else BLACK,
              0.04) for s in (-1, 1)]
    layers += [(rounded(0.53 - w, back, 0.47 + w, 0.78, 0.06), MAIN, 0),
               (mirror([(w - arm, 0.57), (w - arm, 0.68)]), LIGHT, 0), (line(0.5, back + 0.04, 0.5, 0.68), DARK,
               0.014)]
    layers += [(rounded(0.5 + s * w - arm, 0.46 + 0.06 * d[4], 0.5 + s * w + arm, 0.8, 0.05),
               SECOND if d[5] > 0.6 else DARK, 0) for s in (-1, 1)]
    layers += [(rounded(0.56, 0.43, 0.7, 0.57, 0.03), SECOND, 0)] if a else []
    layers += [(ellipse(x, back + 0.1, 0.016, 0.016), BLACK, 0) for x in np.linspace(0.6 - w, 0.4 + w, 6)] if b else []
    return layers, (0.5 - w * 0.45, back + 0.17, 0.09)


def cabinet(d, a, b):
    w, top, rows = 0.24 + 0.1 * d[0], 0.16 + 0.12 * d[1], 2 + int(3 * d[2])
    layers = [(line(0.5 + s * (w - 0.04), 0.8, 0.5 + s * (w - 0.04), 0.92), DARK, 0.045) for s in (-1,
              1)] + [(rect(0.5 - w, top, 0.5 + w, 0.84), MAIN, 0), (rect(0.48 - w, top - 0.03, 0.52 + w, top + 0.03),
              SECOND if d[3] > 0.5 else DARK, 0)]
    if a:
        layers += [(line(0.5, top, 0.5, 0.84), DARK, 0.018)]
        knobs = [(0.5 + s * 0.05, 0.55) for s in (-1, 1)]
    else:
        ys = np.linspace(top, 0.84, rows + 1)
        layers += [(line(0.5 - w, y, 0.5 + w, y), DARK, 0.018) for y in ys[1:-1]]
        knobs = [(0.5 + s * w * 0.5, (y0 + y1) / 2) for y0, y1 in zip(ys[:-1], ys[1:], strict=True) for s in (-1, 1)]
    layers += [(ellipse(x, y, 0.025, 0.025) if b else rect(x - 0.04, y - 0.012, x + 0.04, y + 0.012),
               METAL if d[4] > 0.5 else BLACK, 0) for x, y in knobs]
    return layers, (0.5 - w * 0.55 * (1 if d[7] > 0.5 else 0), top + (0.84 - top) * 0.3, 0.085)


def vase(d, a, b):
    neck, belly, mouth, y = 0.05 + 0.06 * d[0], 0.14 + 0.12 * d[1], 0.07 + 0.09 * d[2], 0.55 + 0.15 * d[3]
    layers = []
    if a:
        for x, top in ((-0.16, 0.12), (0.0, 0.06), (0.15, 0.13)):
            layers += [(line(0.5, 0.34, 0.5 + x, top), GREEN, 0.018), (ellipse(0.5 + x, top, 0.06, 0.06), SECOND, 0),
                       (ellipse(0.5 + x, top, 0.022, 0.022), WHITE, 0)]
    layers += [(smooth(mirror([(mouth, 0.28), (neck, 0.38), (belly, y), (belly * 0.9, y + 0.12),
               (0.08 + 0.06 * d[4], 0.93), (0.05, 0.93)]), 2), MAIN, 0)]
    layers += [(line(0.5 - neck * 0.9, 0.4, 0.5 + neck * 0.9, 0.4), SECOND, 0.045)] if b else []
    return layers, (0.5, y + 0.06, 0.09)


def clock(d, a, b):
    r = 0.27 + 0.06 * d[0]
    case = ellipse(0.5, 0.54, r, r) if a else rounded(0.5 - r, 0.54 - r, 0.5 + r, 0.54 + r, 0.04)
    layers = [(ellipse(0.5 + s * 0.17, 0.56 - r - 0.04, 0.09, 0.07), METAL, 0) for s in (-1, 1)] if b else []
    layers += ([(line(0.5 + s * r * 0.5, 0.54 + r * 0.8, 0.5 + s * r * 0.75, 0.94), DARK, 0.04) for s in (-1,
               1)] if b or d[6] > 0.6 else [])
    layers += [(case, MAIN, 0), (ellipse(0.5, 0.54, r * 0.7, r * 0.7), WHITE if d[1] > 0.4 else BLACK, 0)]
    angle, n = 6.28 * d[2], 4 if d[3] < 0.5 else 8
    layers += [(ellipse(0.5 + r * 0.58 * np.cos(t), 0.54 + r * 0.58 * np.sin(t), 0.014, 0.014), SECOND,
               0) for t in np.arange(n) * 6.2832 / n]
    layers += [(line(0.5, 0.54, 0.5 + r * 0.5 * np.cos(angle), 0.54 + r * 0.5 * np.sin(angle)), SECOND, 0.025),
               (line(0.5, 0.54, 0.5 + r * 0.35 * np.sin(3 * angle), 0.54 + r * 0.35 * np.cos(3 * angle)), SECOND,
               0.03)]
    return layers, (0.5, 0.54 + r * 0.05, 0.085)


def guitar(d, a, b):
    lower, upper, waist = 0.19 + 0.05 * d[0], 0.13 + 0.04 * d[1], 0.09 + 0.03 * d[2]
    layers = [(arc(0.5, 0.5, 0.3, 0.42, 80, -80), SECOND, 0.03)] if a else []
    layers += [(smooth(mirror([(0.07, 0.4), (upper, 0.46), (waist, 0.6), (lower, 0.74), (lower * 0.8, 0.92),
               (0.07, 0.95)]), 2), MAIN, 0)]
    layers += [(ellipse(0.5 + upper, 0.43, 0.07, 0.06), BLACK, 0)] if b else []
    layers += [(line(0.5, 0.62, 0.5, 0.14), WOOD if d[3] > 0.5 else BLACK, 0.05),
               (smooth(mirror([(0.045 + 0.03 * d[4], 0.04), (0.04, 0.17)]), 1), SECOND if d[5] > 0.5 else DARK, 0),
               (ellipse(0.5, 0.64, 0.055, 0.055), BLACK, 0), (line(0.43, 0.8, 0.57, 0.8), BLACK, 0.03)]
    return layers, (0.5 - lower * 0.55, 0.78, 0.08)


def skateboard(d, a, b):
    h, tail = 0.1 + 0.05 * d[0], 0.06 + 0.06 * d[1]
    deck = smooth([(0.08, 0.47 - h * 0.5), (0.2, 0.48 - h), (0.8, 0.48 - h), (0.92, 0.47 - h * 0.5),
                  (0.92, 0.47 + h * 0.5), (0.8, 0.48 + h), (0.2, 0.48 + h), (0.08, 0.47 + h * 0.5)],
                  1 + int(2 * d[2]))
    layers = [(ellipse(x, 0.49 + h, tail * 0.6 + 0.03, tail * 0.6 + 0.03), SECOND if d[3] > 0.4 else WHITE,
              0) for x in (0.24, 0.34, 0.66, 0.76)]
    layers += [(line(0.2, 0.47 + h, 0.38, 0.47 + h), METAL, 0.035), (line(0.62, 0.47 + h, 0.8, 0.47 + h), METAL,
               0.035), (deck, MAIN, 0)]
    layers += [(rect(0.46 - 0.2 * d[4], 0.48 - h, 0.54 - 0.2 * d[4], 0.48 + h), SECOND, 0)] if a else []
    layers += [(rect(0.68, 0.48 - h, 0.8, 0.48 + h), BLACK, 0)] if b else []
    return layers, (0.58, 0.48, 0.09)


DRAW = {"mug": mug, "teapot": teapot, "bottle": bottle, "pan": pan, "lamp": lamp, "pendant": pendant, "chair": chair,
        "sofa": sofa, "cabinet": cabinet, "vase": vase, "clock": clock, "guitar": guitar, "skateboard": skateboard}
