"""Shapes of the fashion categories of the embedded catalogue: one function per leaf.

Each function takes (d, a, b): d, eight numbers in [0, 1) for the product's proportions, and whether it has its optional
parts 1 and 2 (see wording.CATEGORIES). It returns the layers, back to front, and the position of the brand's glyph
(x, y, radius), in the unit square. A layer is (points [n, 2], paint, width): width 0 fills the polygon, any other draws
a line of that width.
"""

import numpy as np

from retrieval_jax.data.shop.shapes import (
    BLACK,
    DARK,
    GLASS,
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


def _sleeved(width, hem, sleeve, flare, collar):
    """Returns the outline of a garment with sleeves: body half width, y of the hem, length of the sleeve."""
    out = 0.5 * sleeve
    return mirror([(collar, 0.12), (width, 0.16), (width + 0.05 + out, 0.20 + sleeve),
                  (width - 0.03 + out * 0.75, 0.27 + sleeve), (width - 0.02, 0.33), (width - 0.02 + flare, hem)])


def t_shirt(d, a, b):
    w, hem = 0.19 + 0.07 * d[0], 0.78 + 0.12 * d[1]
    neck = [(0.41, 0.11), (0.59, 0.11), (0.5, 0.24 + 0.06 * d[3])] if b else ellipse(0.5, 0.115, 0.09, 0.05)
    layers = [(_sleeved(w, hem, 0.12 + 0.12 * d[2], 0.04 * d[3], 0.1), MAIN, 0),
              (neck, SECOND if d[4] > 0.5 else DARK, 0)]
    layers += [(rect(0.54, 0.36, 0.54 + 0.12, 0.48), DARK, 0.012)] if a else []
    layers += [(line(0.5 - w, hem - 0.04, 0.5 + w, hem - 0.04), SECOND, 0.02)] if d[5] > 0.6 else []
    return layers, (0.43 - 0.03 * d[6], 0.42 + 0.08 * d[7], 0.1)


def shirt(d, a, b):
    w, hem = 0.18 + 0.06 * d[0], 0.8 + 0.1 * d[1]
    layers = [(_sleeved(w, hem, 0.42 if b else 0.15, 0.03, 0.08), MAIN, 0),
              ([(0.5, 0.24), (0.4, 0.1), (0.36, 0.2 + 0.06 * d[2])], LIGHT, 0),
              ([(0.5, 0.24), (0.6, 0.1), (0.64, 0.2 + 0.06 * d[2])], LIGHT, 0),
              (line(0.5, 0.24, 0.5, hem), DARK, 0.012)]
    layers += [(ellipse(0.5, y, 0.016, 0.016), WHITE, 0) for y in np.linspace(0.3, hem - 0.06, 3 + int(5 * d[3]))]
    layers += [(rect(0.54, 0.36, 0.65, 0.48), DARK, 0.014)] if a else []
    return layers, (0.41, 0.44 + 0.1 * d[7], 0.09)


def hoodie(d, a, b):
    w, hem = 0.21 + 0.05 * d[0], 0.82 + 0.08 * d[1]
    hood = smooth(mirror([(0.06, 0.05), (0.15 + 0.03 * d[2], 0.12), (0.12, 0.27)]))
    layers = [(_sleeved(w, hem, 0.42, 0.0, 0.1), MAIN, 0), (hood, MAIN, 0),
              (ellipse(0.5, 0.17, 0.075, 0.075), DARK, 0), (rect(0.52 - w, hem - 0.06, 0.48 + w, hem),
              SECOND if d[4] > 0.5 else DARK, 0)]
    layers += ([(line(0.5, 0.25, 0.5, hem), METAL, 0.02)] if a else [(line(0.46, 0.24, 0.46, 0.36), WHITE, 0.014),
               (line(0.54, 0.24, 0.54, 0.36), WHITE, 0.014)])
    layers += [(mirror([(0.09, 0.6), (0.14, 0.74)]), DARK, 0)] if b else []
    return layers, (0.41, 0.42 + 0.05 * d[7], 0.1)


def trousers(d, a, b):
    w, leg = 0.15 + 0.05 * d[0], 0.07 + 0.07 * d[1]
    right = [(0.5, 0.08), (0.5 + w, 0.08), (0.53 + w, 0.35), (0.5 + w * 0.7 + leg, 0.92),
             (0.5 + w * 0.7 - leg * 0.5, 0.92), (0.5, 0.4)]
    left = [(1 - x, y) for x, y in reversed(right)]
    layers = [(right + left, MAIN, 0), (line(0.5, 0.1, 0.5, 0.4), DARK, 0.012)]
    layers += ([(rect(0.5 - w, 0.08, 0.5 + w, 0.14), SECOND, 0), (rect(0.46, 0.08, 0.54, 0.14), METAL,
               0)] if a else [(line(0.5 - w, 0.13, 0.5 + w, 0.13), DARK, 0.01)])
    for s in (-1, 1):
        x = 0.5 + s * w * 0.7
        layers += [(rect(x + s * -leg * 0.5, 0.86, x + s * leg, 0.92), LIGHT, 0)] if b else []
        layers += [(line(x - 0.05, 0.2, x + 0.05, 0.24), DARK, 0.014)] if d[2] > 0.5 else []
    return layers, (0.5 - w * 0.62, 0.33 + 0.15 * d[7], 0.085)


def shorts(d, a, b):
    w, leg, hem = 0.22 + 0.05 * d[0], 0.05 + 0.06 * d[1], 0.6 + 0.18 * d[2]
    right = [(0.5, 0.2), (0.5 + w, 0.2), (0.5 + w + leg, hem), (0.53, hem), (0.5, 0.47)]
    layers = [(right + [(1 - x, y) for x, y in reversed(right)], MAIN, 0), (line(0.5, 0.2, 0.5, 0.47), DARK, 0.014)]
    layers += ([(rect(0.5 - w, 0.2, 0.5 + w, 0.27), SECOND, 0), (rect(0.45, 0.2, 0.55, 0.27), METAL,
               0)] if a else [(line(0.5 - w, 0.26, 0.5 + w, 0.26), DARK, 0.012)])
    for s in (-1, 1):
        layers += ([([(0.5 + s * 0.03, hem - 0.07), (0.5 + s * (w + leg * 0.85), hem - 0.07),
                   (0.5 + s * (w + leg), hem), (0.5 + s * 0.03, hem)], LIGHT, 0)] if b else [])
    return layers, (0.5 - w * 0.6, 0.38 + 0.06 * d[7], 0.095)


def skirt(d, a, b):
    w, flare, hem = 0.13 + 0.05 * d[0], 0.06 + 0.2 * d[1], 0.65 + 0.25 * d[2]
    bottom = [(0.5 + s * (w + flare), hem + (0.04 if i % 2 else 0)) for i, s in enumerate(np.linspace(1, -1, 9))]
    layers = [(np.array([(0.5 - w, 0.14), (0.5 + w, 0.14)] + bottom), MAIN, 0)]
    layers += [(line(0.5 + s * w * 0.8, 0.2, 0.5 + s * (w + flare * 0.8), hem), DARK,
               0.01) for s in np.linspace(-0.6, 0.6, 2 + int(3 * d[3]))]
    layers += ([(rect(0.49 - w, 0.13, 0.51 + w, 0.2), SECOND, 0), (rect(0.46, 0.13, 0.54, 0.2), METAL,
               0)] if a else [(rect(0.5 - w, 0.13, 0.5 + w, 0.18), DARK, 0)])
    layers += ([(np.array(bottom + [(0.5 - w - flare * 0.9, hem - 0.1), (0.5 + w + flare * 0.9, hem - 0.1)]), LIGHT,
               0)] if b else [])
    return layers, (0.46, 0.34 + 0.1 * d[7], 0.095)


def dress(d, a, b):
    waist, flare, hem, y = 0.1 + 0.04 * d[0], 0.1 + 0.17 * d[1], 0.75 + 0.17 * d[2], 0.4 + 0.06 * d[3]
    body = mirror([(0.05, 0.17), (0.09, 0.07), (0.13, 0.09), (0.15, 0.28), (waist, y), (waist + flare, hem)])
    layers = [(mirror([(0.11, 0.09), (0.27, 0.5), (0.22, 0.53), (0.1, 0.28)]), MAIN, 0)] if b else []
    layers += [(body, MAIN, 0)]
    layers += ([(rect(0.5 - waist, y - 0.03, 0.5 + waist, y + 0.03), SECOND,
               0)] if a else [(line(0.5 - waist, y, 0.5 + waist, y), DARK, 0.012)])
    layers += ([(line(0.5 - waist - flare, hem - 0.04, 0.5 + waist + flare, hem - 0.04), SECOND,
               0.03)] if d[4] > 0.5 else [])
    return layers, (0.5, 0.56 + 0.08 * d[7], 0.09)


def coat(d, a, b):
    w, hem = 0.19 + 0.05 * d[0], 0.84 + 0.09 * d[1]
    layers = [(_sleeved(w, hem, 0.45, 0.06 * d[2], 0.09), MAIN, 0), (mirror([(0.0, 0.1), (0.1, 0.1), (0.0, 0.36)]),
              WHITE, 0), ([(0.39, 0.09), (0.5, 0.38), (0.34, 0.28)], DARK, 0),
              ([(0.61, 0.09), (0.5, 0.38), (0.66, 0.28)], DARK, 0), (line(0.5, 0.38, 0.5, hem), DARK, 0.014)]
    layers += [(rect(0.5 - w, 0.52, 0.5 + w, 0.58), SECOND, 0), (rect(0.46, 0.51, 0.54, 0.59), METAL, 0)] if a else []
    layers += ([(ellipse(0.5 + s * 0.05, y, 0.02, 0.02), METAL, 0) for y in np.linspace(0.44, hem - 0.12,
               3 + int(2 * d[3])) for s in (-1, 1)] if b else [])
    return layers, (0.5 - w * 0.6, 0.66 + 0.05 * d[7], 0.09)


def sneaker(d, a, b):
    top, sole, toe = (0.2 if b else 0.33) + 0.04 * d[0], 0.06 + 0.06 * d[1], 0.86 + 0.06 * d[2]
    upper = smooth([(0.1, 0.72), (0.1, top), (0.2, top - 0.02), (0.36, top), (0.5, 0.47), (0.75, 0.55), (toe, 0.62),
                   (toe, 0.73)])
    layers = [(upper, MAIN, 0), (smooth([(toe - 0.2, 0.56), (toe, 0.6), (toe + 0.01, 0.73), (toe - 0.19, 0.73)]),
              SECOND if d[3] > 0.4 else LIGHT, 0), (smooth([(0.08, 0.71), (toe + 0.02, 0.71),
              (toe + 0.02, 0.71 + sole), (0.08, 0.71 + sole)], 1), WHITE if d[4] > 0.3 else BLACK, 0)]
    layers += ([(line(x, y, x + 0.07, y - 0.07), WHITE, 0.022) for x, y in zip(np.linspace(0.36, 0.58, 4),
               np.linspace(top + 0.12, 0.6, 4), strict=True)] if a else [])
    layers += [(line(0.46, 0.68, 0.56, 0.58), SECOND, 0.03)] if d[5] > 0.5 else []
    return layers, (0.26, 0.55, 0.095)


def boot(d, a, b):
    top, w, heel = 0.1 + 0.12 * d[0], 0.14 + 0.05 * d[1], 0.04 + 0.06 * d[2]
    shaft = [(0.22, top), (0.28 + 2 * w, top), (0.26 + 2 * w, 0.5), (0.8, 0.64), (0.87, 0.8), (0.22, 0.8), (0.25, 0.55)]
    layers = [(smooth(shaft), MAIN, 0), (np.array([(0.22, 0.79), (0.88, 0.79), (0.88, 0.83), (0.42, 0.83),
              (0.4, 0.83 + heel), (0.22, 0.83 + heel)]), BLACK, 0), (line(0.26, top + 0.03, 0.25 + 2 * w,
              top + 0.03), SECOND if d[3] > 0.5 else DARK, 0.035)]
    layers += ([(line(0.25, 0.56, 0.3 + 2 * w, 0.56), DARK, 0.035), (ellipse(0.22 + 2 * w, 0.56, 0.035, 0.04), METAL,
               0)] if a else [])
    layers += [(line(0.28, top + 0.08, 0.3, 0.72), METAL, 0.022)] if b else []
    return layers, (0.27 + w, 0.38, 0.1)


def heels(d, a, b):
    h, thick, toe = 0.3 + 0.2 * d[0], 0.03 + 0.06 * d[1], 0.84 + 0.06 * d[2]
    y = 0.76 - h
    body = [(0.12, y), (0.2, y - 0.02), (0.42, y + 0.2), (0.62, 0.6), (toe, 0.68), (toe, 0.77), (0.62, 0.78),
            (0.4, y + 0.34), (0.14, y + 0.22)]
    layers = [([(0.13, y + 0.14), (0.13 + thick * 2, y + 0.2), (0.15 + thick, 0.8), (0.15, 0.8)], DARK, 0),
              (smooth(body), MAIN, 0), (line(0.6, 0.785, toe, 0.77), BLACK, 0.025)]
    layers += [(arc(0.25, y + 0.0, 0.13, 0.09, 180, 400), SECOND, 0.035)] if a else []
    layers += ([([(0.72, 0.6), (0.64, 0.53), (0.64, 0.68)], SECOND, 0),
               ([(0.72, 0.6), (0.8, 0.53), (0.8, 0.68)], SECOND, 0)] if b else [])
    return layers, (0.29, y + 0.2, 0.085)


def handbag(d, a, b):
    w, h, top, handle = 0.28 + 0.1 * d[0], 0.3 + 0.14 * d[1], 0.42, 0.12 + 0.18 * d[2]
    body = smooth(mirror([(w * (0.6 + 0.3 * d[3]), top), (w * 0.95, top + h * 0.2), (w, top + h * 0.9),
                  (w * 0.8, top + h)]), 1 + int(2 * d[4]))
    layers = [(arc(0.5, top + 0.06, w * 0.6, handle + 0.06, 180, 360), METAL if b else DARK, 0.03 + 0.02 * d[5]),
              (body, MAIN, 0), (mirror([(w * 0.75, top), (w * 0.85, top + h * 0.4),
              (0.0, top + h * (0.4 + 0.2 * d[6]))]), SECOND if d[4] > 0.6 else DARK, 0)]
    layers += [(rect(0.45, top + h * 0.42, 0.55, top + h * 0.62), METAL, 0)] if a else []
    return layers, (0.5 + w * 0.5 * (1 if d[7] > 0.5 else -1), top + h * 0.68, 0.085)


def backpack(d, a, b):
    w, top = 0.22 + 0.08 * d[0], 0.16 + 0.06 * d[1]
    body = smooth(mirror([(w * 0.6, top - 0.04), (w, top + 0.1), (w + 0.02, 0.9), (w * 0.5, 0.92)]))
    layers = [(arc(0.5, top + 0.02, 0.09, 0.1, 180, 360), DARK, 0.035),
              (line(0.52 - w, 0.35, 0.46 - w, 0.85), DARK, 0.05), (line(0.48 + w, 0.35, 0.54 + w, 0.85), DARK, 0.05),
              (body, MAIN, 0), (smooth(mirror([(w * 0.7, top + 0.02), (w * 0.92, 0.4 + 0.08 * d[2]),
              (w * 0.4, 0.45 + 0.08 * d[2])])), SECOND if d[3] > 0.5 else DARK, 0)]
    layers += ([(rounded(0.5 - w * 0.7, 0.62, 0.5 + w * 0.7, 0.86, 0.05), LIGHT, 0),
               (line(0.5 - w * 0.6, 0.69, 0.5 + w * 0.6, 0.69), METAL, 0.014)] if a else [])
    layers += ([(line(0.5 + s * w * 0.5, 0.38, 0.5 + s * w * 0.5, 0.58), BLACK, 0.03) for s in (-1, 1)]
               + [(ellipse(0.5 + s * w * 0.5, 0.55, 0.03, 0.03), METAL, 0) for s in (-1, 1)] if b else [])
    return layers, (0.5, 0.31 + 0.03 * d[7], 0.09)


def tote(d, a, b):
    w, top, taper = 0.24 + 0.09 * d[0], 0.36 + 0.1 * d[1], 0.06 * d[2]
    layers = [(arc(0.5, top, 0.13, top - 0.08, 180, 360), DARK if d[3] < 0.5 else SECOND, 0.03 + 0.02 * d[4]),
              (mirror([(w, top), (w - taper, 0.92)]), MAIN, 0)]
    layers += [(line(0.5 - w, top + 0.05, 0.5 + w, top + 0.05), SECOND, 0.04)] if d[5] > 0.5 else []
    layers += ([(rect(0.5 - w * 0.5, 0.66, 0.5 + w * 0.5, 0.86), LIGHT, 0),
               (rect(0.5 - w * 0.5, 0.66, 0.5 + w * 0.5, 0.86), DARK, 0.012)] if a else [])
    layers += ([([(0.5 + w * 0.6, top + 0.06), (0.42 + w * 0.6, top - 0.02), (0.42 + w * 0.6, top + 0.15)], SECOND,
               0), ([(0.5 + w * 0.6, top + 0.06), (0.58 + w * 0.6, top - 0.02), (0.58 + w * 0.6, top + 0.15)],
               SECOND, 0)] if b else [])
    return layers, (0.47, top + 0.2, 0.1)


def cap(d, a, b):
    h, brim = 0.3 + 0.12 * d[0], 0.2 + 0.12 * d[1]
    crown = np.concatenate([arc(0.4, 0.62, 0.28, h, 180, 360), [(0.68, 0.66), (0.12, 0.66)]])
    layers = [(crown, MAIN, 0), (smooth([(0.4, 0.62), (0.68, 0.6), (0.68 + brim, 0.68), (0.66 + brim, 0.74),
              (0.5, 0.7)]), SECOND if d[2] > 0.5 else DARK, 0), (arc(0.4, 0.62, 0.12, h, 180, 270), DARK, 0.012),
              (arc(0.4, 0.62, 0.1, h, 270, 360), DARK, 0.012)]
    layers += [(line(0.13, 0.63, 0.66, 0.63), SECOND, 0.05)] if a else []
    layers += [(ellipse(0.4, 0.62 - h, 0.045, 0.03), SECOND, 0)] if b else []
    return layers, (0.45, 0.48, 0.105)


def hat(d, a, b):
    w, h, brim = 0.19 + 0.05 * d[0], 0.28 + 0.14 * d[1], 0.08 + 0.05 * d[2]
    layers = [(ellipse(0.5, 0.7, 0.4 + 0.04 * d[3], brim), MAIN, 0), (smooth(mirror([(0.03, 0.74 - h),
              (w * 0.9, 0.68 - h), (w + 0.02, 0.72), (w * 0.4, 0.75)]), 2), MAIN, 0),
              (arc(0.5, 0.7, w + 0.02, 0.05, 0, 180), DARK, 0.014)]
    layers += [(mirror([(w, 0.61), (w + 0.02, 0.7)]), SECOND, 0)] if a else []
    layers += ([(smooth([(0.6 + w * 0.3, 0.68), (0.62 + w * 0.4, 0.45), (0.72 + w * 0.5, 0.32),
               (0.72 + w * 0.5, 0.5)]), SECOND, 0)] if b else [])
    return layers, (0.46, 0.66 - h * 0.45, 0.09)


def sunglasses(d, a, b):
    r, gap, rim = 0.14 + 0.04 * d[0], 0.2 + 0.02 * d[1], 0.035 + 0.025 * d[2]
    layers = [(arc(0.5, 0.5, 0.43, 0.3 + 0.08 * d[3], 15, 165), METAL, 0.018)] if b else []
    for s in (-1, 1):
        x = 0.5 + s * gap
        lens = (ellipse(x, 0.5, r, r) if a else smooth([(x - r, 0.4), (x + r, 0.4),
                (x + r * 0.85, 0.6 + 0.06 * d[4]), (x - r * 0.85, 0.6 + 0.06 * d[4])], 1))
        rim_shape = (lens - (x, 0.5)) * (1 + rim / r * 1.3) + (x, 0.5)
        layers += [(line(x + s * r, 0.44, 0.5 + s * 0.43, 0.36 - 0.05 * d[5]), SECOND if d[6] > 0.5 else DARK,
                   0.045), (rim_shape, MAIN, 0), (lens, BLACK if d[7] > 0.3 else GLASS, 0)]
    layers += [(arc(0.5, 0.5, gap - r + 0.01, 0.08, 200, 340), MAIN, 0.04)]
    return layers, (0.5 - gap, 0.5, 0.085)


def watch(d, a, b):
    r, w = 0.19 + 0.05 * d[0], 0.08 + 0.06 * d[1]
    case = ellipse(0.5, 0.5, r, r) if a else rounded(0.5 - r, 0.5 - r, 0.5 + r, 0.5 + r, 0.05)
    layers = [(mirror([(w * 0.8, 0.06), (w, 0.5), (w * 0.8, 0.94)]), MAIN, 0),
              (case, METAL if d[2] > 0.4 else SECOND, 0), ((case - 0.5) * 0.8 + 0.5, WHITE if d[3] > 0.5 else BLACK,
              0), (rect(0.49 + r, 0.47, 0.54 + r, 0.53), METAL, 0)]
    layers += ([(ellipse(0.5 + x, 0.5 + y, 0.035, 0.035), METAL, 0) for x,
               y in ((-0.09, 0.0), (0.09, 0.0), (0.0, 0.1))] if b else [])
    angle = 6.28 * d[4]
    layers += [(line(0.5, 0.5, 0.5 + 0.13 * np.cos(angle), 0.5 + 0.13 * np.sin(angle)), SECOND, 0.02),
               (line(0.5, 0.5, 0.5, 0.4), SECOND, 0.024)]
    layers += [(line(0.5 - w, y, 0.5 + w, y), DARK, 0.014) for y in np.linspace(0.1, 0.22, 1 + int(3 * d[5]))]
    return layers, (0.5, 0.8, 0.075)


def umbrella(d, a, b):
    h, n = 0.3 + 0.12 * d[0], 4 + 2 * int(2 * d[1])
    y = 0.5
    edge = np.concatenate([arc(0.5 + x, y, 0.4 / n, 0.03 + (0.04 if a else 0.0), 0,
                          -180) for x in np.linspace(0.4 - 0.4 / n, -0.4 + 0.4 / n, n)])
    canopy = np.concatenate([arc(0.5, y, 0.4, h, 180, 360), edge])
    layers = [(line(0.5, y - h - 0.04, 0.5, 0.88), WOOD if d[2] > 0.5 else BLACK, 0.022), (canopy, MAIN, 0)]
    layers += [(arc(0.5, y, 0.4 * s, h, 180, 360), DARK, 0.01) for s in np.linspace(0, 0.8, n // 2)]
    layers += ([(arc(0.55, 0.88, 0.05, 0.06, 0, 180), WOOD if d[2] > 0.5 else BLACK,
               0.035)] if b else [(line(0.5, 0.78, 0.5, 0.92), SECOND, 0.045)])
    return layers, (0.4, y - h * 0.42, 0.095)


DRAW = {"t-shirt": t_shirt, "shirt": shirt, "hoodie": hoodie, "trousers": trousers, "shorts": shorts, "skirt": skirt,
        "dress": dress, "coat": coat, "sneaker": sneaker, "boot": boot, "heels": heels, "handbag": handbag,
        "backpack": backpack, "tote": tote, "cap": cap, "hat": hat, "sunglasses": sunglasses, "watch": watch,
        "umbrella": umbrella}
