"""Little landscapes with a label for every pixel, drawn with numpy and Pillow.

A scene is painted back to front, as a painter would: sky, sun, hills, grass, a road that runs to the horizon, and along
it trees, houses and cars. Season, weather, time of day and every shape vary, so that a class has many colors and a
color many classes: snow is as white as a cloud, a house may be as green as a tree, and autumn leaves glow like the
evening sky.
"""

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ('sky', 'sun', 'hill', 'grass', 'road', 'tree', 'house', 'car')
#: one RGB color per class for label overlays, in the order of CLASSES
PALETTE = (
    [110, 180, 230],
    [255, 215, 40],
    [150, 120, 170],
    [140, 200, 90],
    [125, 125, 135],
    [30, 125, 60],
    [215, 120, 60],
    [215, 40, 70],
)
#: label of the pixels on an outline, which belong to two classes at once
IGNORED = 255

SKY, SUN, HILL, GRASS, ROAD, TREE, HOUSE, CAR = range(len(CLASSES))
_SUPERSAMPLING = 4


def draw_scene(size, rng):
    """Draws one scene.

    Args:
        size (tuple[int, int]): height and width in pixels, each at least 32.
        rng (numpy.random.Generator): where every choice comes from; the same state draws the same scene.

    Returns:
        tuple[numpy.ndarray, numpy.ndarray]: the image, (H, W, 3) RGB uint8, and its label map, (H, W) uint8 with
        indices into CLASSES, IGNORED on outlines.
    """
    canvas = Canvas(size, rng)
    mood = _Mood(rng)
    ground = _Ground(canvas, rng)
    _paint_sky(canvas, mood, ground)
    if mood.sunny:
        _paint_sun(canvas, mood, ground)
    _paint_hills(canvas, mood, ground)
    _paint_grass(canvas, mood, ground)
    _paint_road(canvas, mood, ground)
    _paint_things(canvas, mood, ground)
    return canvas.develop(mood.light), canvas.label_map()


class Canvas:
    """An image in the making: `pixels` (H, W, 3) float RGB in 0..1 and `labels` (H, W)."""

    def __init__(self, size, rng):
        self.height, self.width = size
        self.rng = rng
        self.pixels = np.zeros((*size, 3), np.float32)
        self.labels = np.zeros(size, np.uint8)
        self._on_outline = np.zeros(size, bool)
        self._grain = _fractal_noise((2 * self.height, 2 * self.width), rng, coarsest=24)

    def polygon(self, points, color, label=None, grain=0.1):
        """Fills a polygon, points (N, 2) as x, y in pixels; without a label the labels below stay (road markings)."""
        points = np.asarray(points, np.float32)
        self._fill(
            points.min(0), points.max(0), lambda draw, place: draw.polygon(place(points), fill=255), color, label, grain
        )

    def discs(self, discs, color, label=None, grain=0.1, opacity=1.0):
        """Fills the union of ellipses, discs (N, 4) as centre x, centre y, radius x, radius y in pixels."""
        discs = np.asarray(discs, np.float32)
        boxes = np.concatenate([discs[:, :2] - discs[:, 2:], discs[:, :2] + discs[:, 2:]], axis=1)

        def stamp(draw, place):
            for box in boxes:
                draw.ellipse(place(box.reshape(2, 2)), fill=255)

        self._fill(boxes[:, :2].min(0), boxes[:, 2:].max(0), stamp, color, label, grain, opacity)

    def _fill(self, low, high, stamp, color, label, grain, opacity=1.0):
        left, top = np.maximum(np.floor(low).astype(int), 0)
        right, bottom = np.minimum(np.ceil(high).astype(int) + 1, (self.width, self.height))
        if left >= right or top >= bottom:
            return
        mask = Image.new('L', (int(right - left) * _SUPERSAMPLING, int(bottom - top) * _SUPERSAMPLING))
        stamp(
            ImageDraw.Draw(mask), lambda points: [tuple(p) for p in ((points - (left, top)) * _SUPERSAMPLING).tolist()]
        )
        cover = np.asarray(mask.reduce(_SUPERSAMPLING), np.float32) / 255
        window = np.s_[top:bottom, left:right]
        self.pixels[window] += (
            opacity * cover[..., None] * (self._textured(color, grain, cover.shape) - self.pixels[window])
        )
        if label is not None:
            self._relabel(window, cover, label)

    def _textured(self, color, grain, shape):
        y = self.rng.integers(self._grain.shape[0] - shape[0])
        x = self.rng.integers(self._grain.shape[1] - shape[1])
        return np.asarray(color, np.float32) * (1 + grain * self._grain[y : y + shape[0], x : x + shape[1], None])

    def _relabel(self, window, cover, label):
        other = self.labels[window] != label
        outline = self._on_outline[window]
        outline[cover > 0.7] = False
        outline[(cover > 0.3) & (cover <= 0.7) & other] = True
        self.labels[window][cover > 0.5] = label

    def develop(self, light):
        """The finished photograph, (H, W, 3) uint8: colored light, exposure, vignette and sensor noise."""
        y, x = np.mgrid[-1 : 1 : self.height * 1j, -1 : 1 : self.width * 1j].astype(np.float32)
        exposure = self.rng.uniform(0.8, 1.15) * (1 - self.rng.uniform(0, 0.2) * (x**2 + y**2))
        noise = self.rng.normal(0, self.rng.uniform(0.005, 0.03), self.pixels.shape).astype(np.float32)
        photo = self.pixels * light * exposure[..., None] + noise
        return (np.clip(photo, 0, 1) * 255).round().astype(np.uint8)

    def label_map(self):
        return np.where(self._on_outline, np.uint8(IGNORED), self.labels)


class _Mood:
    """Season, weather and time of day: the colors of a scene."""

    _SKIES = {  # zenith, horizon, color of the light
        'noon': ((0.25, 0.50, 0.85), (0.75, 0.87, 0.95), (1.00, 1.00, 0.98)),
        'evening': ((0.35, 0.35, 0.60), (0.98, 0.66, 0.42), (1.00, 0.86, 0.72)),
        'dawn': ((0.45, 0.55, 0.75), (0.95, 0.80, 0.80), (0.98, 0.92, 0.95)),
        'overcast': ((0.62, 0.66, 0.70), (0.80, 0.82, 0.83), (0.85, 0.88, 0.92)),
        'dusk': ((0.10, 0.14, 0.32), (0.40, 0.38, 0.52), (0.62, 0.64, 0.82)),
    }
    _SEASONS = {  # grass, leaves
        'spring': ((0.45, 0.65, 0.25), (0.35, 0.58, 0.22)),
        'summer': ((0.66, 0.63, 0.32), (0.18, 0.42, 0.16)),
        'autumn': ((0.52, 0.50, 0.24), (0.80, 0.45, 0.13)),
        'winter': ((0.90, 0.92, 0.95), (0.22, 0.34, 0.26)),
    }

    def __init__(self, rng):
        time = rng.choice(list(self._SKIES))
        season = rng.choice(list(self._SEASONS))
        self.zenith, self.horizon, self.light = (_shifted(color, rng, 0.04) for color in self._SKIES[time])
        self.grass, self.leaves = (_shifted(color, rng, 0.04) for color in self._SEASONS[season])
        self.sunny = time != 'overcast' and rng.random() < 0.85
        self.low_sun = time in ('evening', 'dawn')
        self.cloudiness = rng.uniform(0.2, 0.9)

    def hazed(self, color, depth):
        """A color as it looks from afar; depth 0 at the horizon, 1 at the viewer."""
        return np.asarray(color) + 0.55 * (1 - depth) ** 2 * (self.horizon - color)


class _Ground:
    """The plane below the horizon and the road on it; depth 0 at the horizon, 1 at the lower edge of the image."""

    def __init__(self, canvas, rng):
        self.width = canvas.width
        self.bottom = canvas.height
        self.horizon = canvas.height * rng.uniform(0.38, 0.58)
        self._vanishing, self._near = canvas.width * rng.uniform((0.25, 0.2), (0.75, 0.8))
        self._bend = canvas.width * rng.uniform(-0.25, 0.25)
        self._road = canvas.width * rng.uniform(0.22, 0.42)

    def y(self, depth):
        return self.horizon + (self.bottom - self.horizon) * depth

    def road_centre(self, depth):
        return self._vanishing + (self._near - self._vanishing) * depth + self._bend * depth * (1 - depth)

    def road_half_width(self, depth):
        return self._road * (0.02 + 0.98 * depth)

    def strip(self, start, stop, left, right):
        """Outline of a piece of the road from depth start to stop; left and right in half widths of the road, -1 to
        1."""
        depth = np.linspace(start, stop, 24)
        sides = [
            np.stack([self.road_centre(depth) + side * self.road_half_width(depth), self.y(depth)], 1)
            for side in (left, right)
        ]
        return np.concatenate([sides[0], sides[1][::-1]])


def _paint_sky(canvas, mood, ground):
    fade = np.clip(np.arange(canvas.height, dtype=np.float32) / ground.horizon, 0, 1)[:, None, None]
    canvas.pixels[:] = mood.zenith + fade * (mood.horizon - mood.zenith)
    noise = _fractal_noise((canvas.height, canvas.width), canvas.rng, coarsest=4, stretch=2)
    cloud = np.clip(noise + mood.cloudiness - 0.6, 0, 1)[..., None] * (1 - 0.6 * fade)
    canvas.pixels += cloud * (0.6 + 0.4 * mood.horizon - canvas.pixels)
    canvas.labels[:] = SKY


def _paint_sun(canvas, mood, ground):
    radius = canvas.height * canvas.rng.uniform(0.05, 0.09)
    x = canvas.width * canvas.rng.uniform(0.06, 0.94)
    y = ground.horizon * (canvas.rng.uniform(0.45, 0.85) if mood.low_sun else canvas.rng.uniform(0.12, 0.5))
    rows, columns = np.mgrid[: canvas.height, : canvas.width].astype(np.float32)
    glow = 0.5 * np.exp(-np.hypot(rows - y, columns - x) / (2.5 * radius))[..., None]
    color = np.array((1, 0.72, 0.38) if mood.low_sun else (1, 0.97, 0.82), np.float32)
    canvas.pixels += glow * (color - canvas.pixels)
    canvas.discs([(x, y, radius, radius)], color, SUN, grain=0.03)


def _paint_hills(canvas, mood, ground):
    rock = _shifted(canvas.rng.choice([(0.35, 0.45, 0.30), (0.42, 0.40, 0.50), (0.55, 0.48, 0.40)]), canvas.rng, 0.05)
    for depth in (0.0, 0.35)[canvas.rng.integers(2) :]:
        x = np.linspace(0, canvas.width, 64)
        waves = canvas.rng.uniform((1, 0, 0.3), (4, 2 * np.pi, 1), (4, 3)) * (
            (1, 1, 1),
            (2, 1, 0.6),
            (5, 1, 0.25),
            (11, 1, 0.1),
        )
        ridge = sum(size * np.sin(rate * np.pi * x / canvas.width + phase) for rate, phase, size in waves)
        height = ground.horizon * canvas.rng.uniform(0.15, 0.4) * (1 - depth)
        y = ground.horizon - height * (0.25 + (ridge - ridge.min()) / np.ptp(ridge))
        outline = [*zip(x, y), (canvas.width, ground.horizon + 2), (0, ground.horizon + 2)]
        canvas.polygon(outline, mood.hazed(rock, depth), HILL, grain=0.15)


def _paint_grass(canvas, mood, ground):
    corners = [(0, ground.horizon), (canvas.width, ground.horizon), (canvas.width, canvas.height), (0, canvas.height)]
    canvas.polygon(corners, mood.grass, GRASS, grain=0.12)
    rows = np.arange(canvas.height, dtype=np.float32)
    depth = np.clip((rows - ground.horizon) / (canvas.height - ground.horizon), 0.02, 1)
    below = rows > ground.horizon + 1
    furrows = canvas.rng.uniform(0, 0.15) * np.sin(canvas.rng.uniform(3, 12) / depth[below])
    canvas.pixels[below] *= (1 + furrows - 0.1 * (1 - depth[below]))[:, None, None]


def _paint_road(canvas, mood, ground):
    color = _shifted(canvas.rng.choice([(0.38, 0.38, 0.40), (0.58, 0.56, 0.54), (0.56, 0.44, 0.32)]), canvas.rng, 0.04)
    canvas.polygon(ground.strip(0, 1.02, -1, 1), color, ROAD, grain=0.1)
    if canvas.rng.random() < 0.7:
        edges = np.geomspace(0.06, 1.1, 2 * canvas.rng.integers(5, 9))
        for start, stop in zip(edges[::2], edges[1::2]):
            canvas.polygon(ground.strip(start, stop, -0.035, 0.035), (0.92, 0.91, 0.85), grain=0.05)


def _paint_things(canvas, mood, ground):
    rng = canvas.rng
    things = [(depth, _paint_tree) for depth in rng.uniform(0.04, 0.75, rng.integers(3, 9))]
    things += [(depth, _paint_house) for depth in rng.uniform(0.12, 0.6, rng.integers(2, 5))]
    things += [(depth, _paint_car) for depth in rng.uniform(0.2, 0.8, rng.integers(1, 4))]
    for depth, paint in sorted(things, key=lambda thing: thing[0]):
        paint(canvas, mood, ground, depth)


def _beside_road(canvas, ground, depth, half_width):
    """x of something `half_width` wide that stands on the grass, left or right of the road."""
    reach = ground.road_half_width(depth) + half_width
    side = canvas.rng.choice((-1, 1))
    return ground.road_centre(depth) + side * (reach + canvas.rng.exponential(0.3) * canvas.width)


def _paint_shadow(canvas, x, y, half_width):
    slant = canvas.rng.uniform(-0.5, 0.5) * half_width
    canvas.discs([(x + slant, y, half_width * 1.1, half_width * 0.18)], (0.10, 0.11, 0.15), grain=0, opacity=0.5)


def _paint_tree(canvas, mood, ground, depth):
    rng = canvas.rng
    y = ground.y(depth)
    height = canvas.height * (0.12 + 0.75 * depth) * rng.uniform(0.7, 1.2)
    half_width = height * rng.uniform(0.22, 0.38)
    x = _beside_road(canvas, ground, depth, 0.5 * half_width)
    _paint_shadow(canvas, x, y, half_width)
    trunk = height * 0.035
    canvas.polygon(
        [(x - trunk, y), (x + trunk, y), (x + 0.6 * trunk, y - 0.6 * height), (x - 0.6 * trunk, y - 0.6 * height)],
        mood.hazed((0.33, 0.24, 0.17), depth),
        TREE,
    )
    leaves = mood.hazed(_shifted(mood.leaves, rng, 0.04), depth)
    if rng.random() < 0.4:
        _paint_fir(canvas, x, y, height, half_width, leaves)
        return
    angle, reach = rng.uniform(0, 2 * np.pi, 14), np.sqrt(rng.uniform(0, 1, 14))
    tufts = np.stack(
        [x + 0.65 * half_width * reach * np.cos(angle), y - 0.66 * height + 0.2 * height * reach * np.sin(angle)], 1
    )
    radius = half_width * rng.uniform(0.3, 0.5, (14, 1))
    tufts = np.concatenate([tufts, radius, radius], 1)
    canvas.discs(tufts, 0.8 * leaves, TREE, grain=0.25)
    canvas.discs(tufts * (1, 1, 0.7, 0.7) - (0, 0.03 * height, 0, 0), 1.1 * leaves, TREE, grain=0.25)


def _paint_fir(canvas, x, y, height, half_width, leaves):
    for tier in range(4):
        base, top = y - height * (0.12 + 0.2 * tier), y - height * (0.45 + 0.185 * tier)
        reach = 0.75 * half_width * (1 - 0.2 * tier)
        canvas.polygon([(x - reach, base), (x + reach, base), (x, top)], leaves * (0.75 + 0.08 * tier), TREE, grain=0.3)


def _paint_house(canvas, mood, ground, depth):
    rng = canvas.rng
    y = ground.y(depth)
    width = canvas.height * (0.08 + 0.75 * depth) * rng.uniform(0.7, 1.1)
    x = _beside_road(canvas, ground, depth, 0.7 * width) - 0.5 * width
    wall, roof = width * rng.uniform(0.4, 0.7), width * rng.uniform(0.25, 0.5)
    color = mood.hazed(rng.uniform((0.55, 0.45, 0.35), (0.95, 0.90, 0.85)), depth)
    tiles = mood.hazed(
        rng.choice([(0.58, 0.25, 0.18), (0.30, 0.30, 0.34), (0.45, 0.33, 0.22), (0.25, 0.36, 0.34)]), depth
    )
    _paint_shadow(canvas, x + 0.5 * width, y, 0.6 * width)
    canvas.polygon(_box(x, y - wall, x + width, y), color, HOUSE, grain=0.06)
    eaves = 0.07 * width
    ridge = rng.choice((0.0, 0.35)) * width  # 0: the gable faces the viewer
    canvas.polygon(
        [
            (x - eaves, y - wall),
            (x + width + eaves, y - wall),
            (x + 0.5 * width + ridge, y - wall - roof),
            (x + 0.5 * width - ridge, y - wall - roof),
        ],
        tiles,
        HOUSE,
        grain=0.15,
    )
    pane = (0.95, 0.82, 0.45) if rng.random() < 0.25 else (0.25, 0.30, 0.38)
    for column in (0.12, 0.64):
        left, top = x + column * width, y - 0.75 * wall
        canvas.polygon(_box(left, top, left + 0.24 * width, top + 0.35 * wall), mood.hazed(pane, depth), HOUSE)
    canvas.polygon(
        _box(x + 0.42 * width, y - 0.55 * wall, x + 0.58 * width, y), mood.hazed((0.35, 0.22, 0.15), depth), HOUSE
    )


def _paint_car(canvas, mood, ground, depth):
    rng = canvas.rng
    lane = rng.choice((-0.5, 0.5))
    half = ground.road_half_width(depth) * 0.3
    x, y = ground.road_centre(depth) + lane * ground.road_half_width(depth), ground.y(depth)
    color = mood.hazed(
        rng.choice(
            [(0.75, 0.12, 0.12), (0.15, 0.25, 0.60), (0.88, 0.88, 0.88), (0.12, 0.12, 0.14), (0.85, 0.68, 0.12)]
        ),
        depth,
    )
    dark = mood.hazed((0.08, 0.08, 0.10), depth)
    canvas.discs([(x, y, 1.15 * half, 0.14 * half)], (0.08, 0.08, 0.10), grain=0, opacity=0.7)
    for side in (-0.72, 0.72):
        canvas.polygon(
            _box(x + (side - 0.18) * half, y - 0.4 * half, x + (side + 0.18) * half, y + 0.08 * half), dark, CAR
        )
    canvas.polygon(
        [
            (x - 0.75 * half, y - 0.75 * half),
            (x - 0.55 * half, y - 1.3 * half),
            (x + 0.55 * half, y - 1.3 * half),
            (x + 0.75 * half, y - 0.75 * half),
        ],
        0.9 * color,
        CAR,
    )
    canvas.polygon(
        [
            (x - 0.6 * half, y - 0.78 * half),
            (x - 0.46 * half, y - 1.2 * half),
            (x + 0.46 * half, y - 1.2 * half),
            (x + 0.6 * half, y - 0.78 * half),
        ],
        (0.45, 0.55, 0.62),
        CAR,
    )
    canvas.polygon(_box(x - half, y - 0.78 * half, x + half, y - 0.12 * half), color, CAR, grain=0.05)
    lamp = (1, 0.95, 0.75) if lane < 0 else (0.9, 0.15, 0.1)  # oncoming cars show their headlights
    canvas.discs(
        [(x + side * half, y - 0.5 * half, 0.14 * half, 0.12 * half) for side in (-0.75, 0.75)], lamp, CAR, grain=0
    )


def _box(left, top, right, bottom):
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _shifted(color, rng, spread):
    """The color a little lighter or darker, and of a slightly different hue."""
    shift = rng.normal(0, 1.5 * spread) + rng.normal(0, 0.5 * spread, 3)
    return np.clip(np.asarray(color) + shift, 0.02, 1).astype(np.float32)


def _fractal_noise(size, rng, coarsest, stretch=1):
    """(H, W) float32 noise with structure from `coarsest` cells across down to two pixels; mean 0, deviation 1."""
    noise = np.zeros(size, np.float32)
    cells, weight = coarsest, 1.0
    while cells * 2 <= max(size):
        shape = (max(2, cells * size[0] * stretch // size[1]), cells)
        octave = Image.fromarray(rng.standard_normal(shape).astype(np.float32))
        noise += weight * np.asarray(octave.resize(size[::-1], Image.Resampling.BICUBIC))
        cells, weight = cells * 2, weight * 0.7
    return (noise - noise.mean()) / noise.std()
