"""Pictures of the embedded catalogue: a product is drawn, then photographed by a shop or by a user.

Products are drawn at twice the size and reduced by area averaging, so that edges are smooth. Everything random comes
from the generator that is passed in; the same generator state gives the same picture (on one version of OpenCV).
"""

import functools

import cv2
import numpy as np

from retrieval_jax.data.shop import shapes, silhouettes_fashion, silhouettes_home, wording

COLOURS_RGB = {
    "black": (40, 40, 44),
    "white": (240, 240, 236),
    "grey": (140, 143, 148),
    "red": (200, 38, 42),
    "orange": (236, 126, 34),
    "yellow": (244, 208, 60),
    "green": (66, 140, 62),
    "teal": (38, 166, 166),
    "blue": (44, 84, 182),
    "purple": (124, 60, 158),
    "pink": (240, 140, 178),
    "brown": (124, 78, 46),
}
PAINTS_RGB = {
    shapes.METAL: (188, 192, 198),
    shapes.BLACK: (32, 32, 36),
    shapes.WHITE: (246, 246, 244),
    shapes.WOOD: (166, 116, 70),
    shapes.GLASS: (150, 196, 210),
    shapes.GREEN: (74, 134, 66),
}
# Backgrounds of shops, and surfaces in users' photos.
PAPERS_RGB = (
    (252, 252, 252),
    (246, 246, 246),
    (238, 239, 241),
    (244, 238, 228),
    (228, 236, 244),
    (244, 228, 230),
    (230, 240, 230),
)
SURFACES_RGB = (
    (150, 110, 74),
    (104, 74, 52),
    (190, 160, 124),
    (120, 122, 128),
    (70, 74, 84),
    (176, 172, 164),
    (92, 110, 92),
    (140, 80, 76),
    (90, 104, 138),
    (206, 196, 180),
)
_DRAW = {**silhouettes_fashion.DRAW, **silhouettes_home.DRAW}
_SHIFT = 4  # OpenCV's polygons take fixed-point coordinates: 1/16 pixel


@functools.cache
def _noise(size: int, cells: int) -> np.ndarray:
    """Returns cloudy noise around 0 with standard deviation 1, float32 [2 * size, 2 * size], `cells` blobs per side."""
    rng = np.random.Generator(np.random.Philox(key=cells))
    field = cv2.resize(
        rng.random((2 * cells, 2 * cells), np.float32), (2 * size, 2 * size), interpolation=cv2.INTER_CUBIC
    )
    return (field - field.mean()) / field.std()


@functools.cache
def _material(name: str, size: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns how a material reflects light: factor uint8 [2 * size, 2 * size, 3], 128 = 1; gloss [size, size, 3]."""
    y, x = np.mgrid[: 2 * size, : 2 * size].astype(np.float32) / size
    grain = _noise(size, size // 2)
    gloss = None
    if name == "cotton":
        factor = 128 + 5 * grain
    elif name == "denim":
        factor = 122 + 24 * np.sin(2 * np.pi * 20 * (x + y)) + 9 * grain
    elif name == "wool":
        factor = 122 + 26 * np.sin(2 * np.pi * 13 * x) * np.abs(
            np.sin(2 * np.pi * (11 * y + 0.3 * np.sin(2 * np.pi * 13 * x)))
        )
    elif name == "leather":
        factor = 118 + 10 * _noise(size, 14) + 5 * grain
        gloss = 75 * np.exp(-(((x - y * 0.35 - 0.22) / 0.07) ** 2))
    elif name == "metal":
        factor = 118 + 34 * np.sin(2 * np.pi * (2.3 * x + 0.15)) + 3 * grain
        gloss = 70 * np.exp(-(((x - 0.42) / 0.06) ** 2))
    elif name == "wood":
        factor = 118 + 26 * np.sin(2 * np.pi * (9 * y + 0.5 * _noise(size, 3))) + 6 * grain
    else:  # ceramic
        factor = 128 + 0 * x
        gloss = 130 * np.exp(-(((x - 0.38) / 0.09) ** 2) - (((y - 0.42) / 0.16) ** 2)) + 40 * np.exp(
            -(((x - 0.66) / 0.05) ** 2)
        )
    factor = cv2.merge([np.clip(factor, 0, 255).astype(np.uint8)] * 3)
    return factor, None if gloss is None else cv2.merge([np.clip(gloss[:size, :size], 0, 255).astype(np.uint8)] * 3)


@functools.cache
def _ramp(size: int) -> np.ndarray:
    """Returns coordinates from -1 to 1, float32 [2, size, size]: x, y."""
    y, x = np.mgrid[:size, :size].astype(np.float32) * (2 / (size - 1)) - 1
    return np.stack([x, y])


def _fixed(points: np.ndarray, size: int) -> np.ndarray:
    return np.round(np.asarray(points) * (size * (1 << _SHIFT))).astype(np.int32)


def _pattern(name: str, size: int, main: tuple, second: tuple, d: np.ndarray) -> np.ndarray:
    """Returns the cloth of the product: uint8 [size, size, 3]; d[0] sets the scale, d[1] the angle, d[2] the phase."""
    cloth = np.empty((size, size, 3), np.uint8)
    cloth[:] = main
    step = size * (0.085 + 0.06 * d[0])
    starts = np.arange(-size + step * d[2], 2 * size, step)
    if name in ("striped", "checked"):
        slope = (0.0, 0.0, 1.0)[int(3 * d[1])] if name == "striped" else 0.0
        upright = d[1] < 0.34 or name == "checked"
        width = max(1, round(step * (0.3 + 0.25 * d[1])))
        for at in starts:
            a, b = round(at), round(at + slope * size)
            if upright:
                cv2.line(cloth, (a, 0), (b, size), second, width)
            else:
                cv2.line(cloth, (0, a), (size, b), second, width)
        if name == "checked":
            across = cloth.copy()
            for at in starts:
                cv2.line(across, (0, round(at)), (size, round(at)), second, width)
            cloth = cv2.addWeighted(cloth, 0.5, across, 0.5, 0)
    elif name == "dotted":
        radius = max(1, round(step * (0.24 + 0.12 * d[1])))
        for i, y in enumerate(starts):
            for x in starts:
                cv2.circle(cloth, (round(x + (i % 2) * step / 2), round(y)), radius, second, -1)
    elif name == "zigzag":
        xs = np.arange(0, size + step, step * 0.6)
        for at in starts:
            wave = np.stack([xs, at + (np.arange(len(xs)) % 2) * step * 0.6], 1)
            cv2.polylines(cloth, [wave.astype(np.int32)], False, second, max(1, round(step * (0.25 + 0.15 * d[1]))))
    elif name == "floral":
        turn = np.arange(5) * (2 * np.pi / 5) + 6.28 * d[1]
        radius = size * (0.028 + 0.014 * d[0])
        for k in range(26):  # a low-discrepancy spread of flowers
            x, y = size * ((d[2] + k * 0.7549) % 1), size * ((d[1] + k * 0.5698) % 1)
            for t in turn:
                cv2.circle(
                    cloth,
                    (round(x + 1.3 * radius * np.cos(t)), round(y + 1.3 * radius * np.sin(t))),
                    round(radius),
                    second,
                    -1,
                )
            cv2.circle(cloth, (round(x), round(y)), round(radius * 0.8), (250, 220, 90), -1)
    elif name == "camouflage":
        x, y = int(d[1] * size), int(d[2] * size)
        clouds = _noise(size, 9 if d[0] < 0.5 else 13)[y : y + size, x : x + size]
        cloth[clouds > 0.35] = second
        cloth[clouds < -0.75] = _shade(main, 0.55)
    elif name == "ombre":
        mix = np.clip((_ramp(size)[1] * (1 if d[1] < 0.5 else -1) + 0.4 * (d[2] - 0.5)) * 0.9 + 0.5, 0, 1)[:, :1, None]
        cloth[:] = np.asarray(main) * (1 - mix) + np.asarray(second) * mix
    return cloth


def _shade(rgb: tuple, factor: float) -> tuple:
    if factor > 1:
        return tuple(round(255 - (255 - v) / factor) for v in rgb)
    if sum(rgb) < 200:  # on black, a seam shows as lighter
        return tuple(round(v + 42 * (1.4 - factor)) for v in rgb)
    return tuple(round(v * factor) for v in rgb)


def draw(product: dict, size: int) -> np.ndarray:
    """Draws a product, upright and without background.

    Args:
      product: attribute name -> index, and "details": float [12] in [0, 1), as of `synthetic.attributes`.
      size: side in px.

    Returns:
      uint8 [size, size, 4]: RGB, black where there is no product, and the mask, 0 or 255.
    """
    d = product["details"]
    colours = list(COLOURS_RGB.values())
    main = tuple(
        int(np.clip(v + 26 * (t - 0.5), 0, 255)) for v, t in zip(colours[product["colour"]], d[8:11], strict=True)
    )
    second = colours[product["second"]]
    paints = dict(PAINTS_RGB)
    paints[shapes.SECOND], paints[shapes.DARK], paints[shapes.LIGHT] = (
        second,
        _shade(main, 0.62),
        _shade(main, 1.7),
    )
    outline = _shade(main, 0.45)
    layers, (gx, gy, radius) = _DRAW[wording.LEAVES[product["category"]]](d, product["part1"], product["part2"])
    cloth = _pattern(list(wording.PATTERNS)[product["pattern"]], size, main, second, d[8:])
    factor, gloss = _material(list(wording.MATERIALS)[product["material"]], size)
    at = int(d[11] * size)
    cloth = cv2.multiply(cloth, factor[at : at + size, at : at + size], scale=1 / 128)
    picture, mask = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), np.uint8)
    thin = max(1, size // 100)
    for points, paint, width in layers:
        fixed = _fixed(points, size)
        if width:
            thick = max(1, round(width * size))
            cv2.polylines(mask, [fixed], False, 255, thick, cv2.LINE_8, _SHIFT)
            if paint == shapes.MAIN:
                part = np.zeros_like(mask)
                cv2.polylines(part, [fixed], False, 255, thick, cv2.LINE_8, _SHIFT)
                cv2.copyTo(cloth, part, picture)
            else:
                cv2.polylines(picture, [fixed], False, paints[paint], thick, cv2.LINE_8, _SHIFT)
            continue
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_8, _SHIFT)
        if paint == shapes.MAIN:
            part = np.zeros_like(mask)
            cv2.fillPoly(part, [fixed], 255, cv2.LINE_8, _SHIFT)
            cv2.copyTo(cloth, part, picture)
        else:
            cv2.fillPoly(picture, [fixed], paints[paint], cv2.LINE_8, _SHIFT)
        cv2.polylines(picture, [fixed], True, outline, thin, cv2.LINE_8, _SHIFT)
    if gloss is not None:
        picture = cv2.add(picture, gloss)
    # Rounder towards the edges: the blurred mask is dark there.
    soft = cv2.blur(mask, (size // 7, size // 7))
    soft = cv2.convertScaleAbs(soft, alpha=62 / 255, beta=74)
    picture = cv2.multiply(picture, cv2.merge([soft, soft, soft]), scale=1 / 128)
    # The brand's glyph on a badge that stands out.
    badge, ink = ((250, 250, 246), (24, 24, 30)) if sum(main) < 420 else ((28, 28, 36), (250, 250, 246))
    centre = np.array((gx, gy))
    cv2.fillPoly(
        picture, [_fixed(shapes.ellipse(gx, gy, radius * 1.08, radius * 1.08), size)], badge, cv2.LINE_8, _SHIFT
    )
    glyph = shapes.GLYPHS[wording.BRANDS[product["brand"]][1]]
    cv2.fillPoly(
        picture, [_fixed(contour * (radius * 0.82) + centre, size) for contour in glyph], ink, cv2.LINE_8, _SHIFT
    )
    return cv2.merge([cv2.copyTo(picture, mask), mask])  # 0 outside the mask: premultiplied


def _view(rng: np.random.Generator, user: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns the corners of the product's square in the picture, float32 [4, 2], in a random view, and its centre."""
    between = lambda low, high: low + (high - low) * rng.random()  # noqa: E731
    angle = np.deg2rad(between(-24, 24) if user else between(-7, 7) if rng.random() < 0.85 else between(-25, 25))
    scale = between(0.82, 1.1) if user else between(0.88, 1.04)
    if not user and rng.random() < 0.1:
        scale = between(1.2, 1.45)  # a close-up
    centre = 0.5 + (rng.random(2) - 0.5) * (0.14 if user else 0.06)
    squeeze = (between(0.82, 1.0), 1.0) if rng.random() < 0.5 else (1.0, between(0.86, 1.0))
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    if rng.random() < 0.3:
        corners[:, 0] *= -1  # seen from the other side
    corners = corners * squeeze + (rng.random((4, 2)) - 0.5) * (0.1 if user else 0.05)
    turn = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    return (corners @ turn * scale + centre).astype(np.float32), centre


def _photograph(drawn: np.ndarray, corners: np.ndarray, size: int) -> np.ndarray:
    """Warps a drawn product [2 * size, 2 * size, 4] to four corners of a picture; float32 [size, size, 4], 0 to 255."""
    large = drawn.shape[0]
    square = np.array([(0, 0), (large, 0), (large, large), (0, large)], np.float32)
    matrix = cv2.getPerspectiveTransform(square, corners * (2 * size))
    warped = cv2.warpPerspective(drawn, matrix, (2 * size, 2 * size))
    return cv2.resize(warped, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)


def _shop_background(rng: np.random.Generator, size: int) -> np.ndarray:
    paper = np.array(PAPERS_RGB[int(rng.random() ** 1.7 * len(PAPERS_RGB))], np.float32)
    x, y = _ramp(size)
    kind = rng.random()
    if kind < 0.45:
        light = np.ones_like(x)
    elif kind < 0.8:
        light = 1.0 - (0.03 + 0.1 * rng.random()) * (x * (rng.random() - 0.5) + y * 0.7 + 0.5)
    else:  # a wall and a table
        light = np.where(y > 0.3 + 0.3 * rng.random(), 0.86 + 0.08 * rng.random(), 1.0).astype(np.float32)
    return paper * light[:, :, None]


def _clutter(rng: np.random.Generator, size: int) -> np.ndarray:
    """Returns a user's table or floor with things on it."""
    base = np.array(SURFACES_RGB[int(rng.random() * len(SURFACES_RGB))], np.float32) * (0.75 + 0.5 * rng.random())
    picture = np.empty((size, size, 3), np.float32)
    picture[:] = base
    kind, amount = int(rng.random() * 4), 0.05 + 0.12 * rng.random()
    x, y = (rng.random(2) * size).astype(int)
    if kind == 3:  # tiles or boards
        coordinate = _ramp(size)[int(rng.random() * 2)] * (2 + 4 * rng.random())
        picture *= (1 - 2 * amount * (np.abs(coordinate - np.round(coordinate)) < 0.07))[:, :, None]
    else:
        picture *= (1 + amount * _noise(size, (5, 12, size // 2)[kind])[y : y + size, x : x + size])[:, :, None]
    picture = np.clip(picture, 0, 255)
    for _ in range(2 + int(5 * rng.random())):
        colour = tuple(float(v) for v in 90 + 60 * rng.random() + 110 * (rng.random(3) - 0.5))
        cx, cy, w, h, turn, shape = rng.random(6)
        w, h = 0.06 + 0.2 * w, 0.03 + 0.14 * h
        points = shapes.ellipse(0, 0, w, h) if shape < 0.4 else shapes.rect(-w, -h, w, h)
        t = 6.28 * turn
        points = points @ np.array([(np.cos(t), np.sin(t)), (-np.sin(t), np.cos(t))]) + (cx, cy)
        cv2.fillPoly(picture, [_fixed(points, size)], colour, cv2.LINE_AA, _SHIFT)
    return picture


def photo(
    product: dict, rng: np.random.Generator, size: int, *, user: bool, other: dict | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Photographs a product as a shop or as a user would.

    Args:
      product: as of `draw`.
      rng: the photo's own random numbers: view, background, light, camera.
      size: side of the picture in px.
      user: a user's photo (clutter, rotation, blur, colour cast, shadow) instead of a shop's.
      other: a second product that is partly visible in a user's photo; None leaves it out.

    Returns:
      The picture, uint8 [size, size, 3] RGB, and the box of the product, float32 [4]: ymin, xmin, ymax, xmax as
      shares of the side, clipped to the picture.
    """
    corners, centre = _view(rng, user)
    layer = _photograph(draw(product, 2 * size), corners, size)
    x, y, w, h = cv2.boundingRect((layer[:, :, 3] > 100).astype(np.uint8))
    box = np.array([y, x, y + h, x + w], np.float32) / size
    picture = _clutter(rng, size) if user else _shop_background(rng, size)
    if user and other is not None:
        angle = 6.28 * rng.random()
        aside = centre + 0.6 * np.array([np.cos(angle), np.sin(angle)])
        neighbour = _photograph(
            draw(other, 2 * size), ((corners - centre)[[1, 2, 3, 0]] * 0.8 + aside).astype(np.float32), size
        )
        picture = neighbour[:, :, :3] + picture * (1 - neighbour[:, :, 3:] / 255)
    if user and rng.random() < 0.7:
        picture = cv2.blur(picture, (1 + 2 * (size // 48), 1 + 2 * (size // 48)))  # the background is out of focus
    # The product casts a shadow on the background.
    shadow = cv2.blur(layer[:, :, 3], (size // 8, size // 8))
    dx, dy = round(size * 0.06 * (rng.random() - 0.5)), round(size * 0.05 * rng.random())
    shadow = cv2.warpAffine(shadow, np.array([[1, 0, dx], [0, 1, dy]], np.float32), (size, size))
    shadow *= (0.25 + 0.3 * rng.random()) / 255
    picture *= 1 - shadow[:, :, None]
    picture = layer[:, :, :3] + picture * (1 - layer[:, :, 3:] / 255)
    ramp = _ramp(size)
    if user:
        if rng.random() < 0.15:  # a finger on the edge
            turn, reach = 6.28 * rng.random(), 0.07 + 0.06 * rng.random()
            tip = 0.5 + 0.52 * np.array([np.cos(turn), np.sin(turn)])
            finger = shapes.ellipse(tip[0], tip[1], reach, reach * 1.3)
            cv2.fillPoly(picture, [_fixed(finger, size)], (206.0, 156.0, 128.0), cv2.LINE_AA, _SHIFT)
        cast = 0.8 + 0.4 * rng.random(3)
        side = 0.6 * (rng.random(2) - 0.5)
        light = (0.8 + 0.42 * rng.random()) * (1 + side[0] * ramp[0] + side[1] * ramp[1])
        if rng.random() < 0.25:  # somebody's shadow
            slope, cut = 2 * rng.random() - 1, rng.random() - 0.5
            light = light * np.where(ramp[0] + slope * ramp[1] > cut, 0.7, 1.0)
        picture = picture * (light[:, :, None] * cast) + 18 * (rng.random() - 0.4)
        blur = 0.65 * rng.random() * size / 64
        if blur > 0.3:
            picture = cv2.GaussianBlur(picture, (0, 0), blur)
        x, y = (rng.random(2) * size).astype(int)
        picture = picture + (6 * rng.random()) * _noise(size, size)[y : y + size, x : x + size, None]
    else:
        gain = (0.92 + 0.16 * rng.random()) * (0.97 + 0.06 * rng.random(3))
        picture = picture * gain * (1 + 0.1 * (rng.random() - 0.5) * ramp[0])[:, :, None]
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    quality = int(40 + 45 * rng.random()) if user else int(78 + 18 * rng.random())
    # OpenCV encodes blue, green, red.
    coded = cv2.imencode(".jpg", picture[:, :, ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
    return np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[:, :, ::-1]), box
