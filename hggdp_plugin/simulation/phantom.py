"""A numerical head phantom: a transverse T2-weighted slice of a brain, drawn by formula.

The anatomy is defined in millimeters by functions whose zero levels are the boundaries, deformed by random waves. Any
matrix size therefore shows the same head, every seed a different one, and adjacent slices fit together. The cortex is
made as it grows: sulci are cut into the brain from its surface, and gray matter lines whatever the fluid touches.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

Array = NDArray[np.float64]

#: Field of view of the phantom along both axes [mm].
FOV_MM = 230.0

#: Distance of adjacent slices [mm].
SLICE_MM = 5.0

#: Signal of each tissue in a T2-weighted spin echo, relative to fluid.
T2_WEIGHTED = {
    "air": 0.0,
    "skin": 0.42,
    "fat": 0.62,
    "muscle": 0.2,
    "bone": 0.03,
    "marrow": 0.4,
    "fluid": 1.0,
    "gray": 0.56,
    "white": 0.37,
    "caudate": 0.52,
    "putamen": 0.49,
    "pallidum": 0.3,
    "thalamus": 0.47,
    "choroid": 0.6,
    "falx": 0.15,
    "vessel": 0.05,
}

_OVERSAMPLING = 2  # the anatomy is drawn on a finer grid and averaged, which gives partial volumes
_HEAD_MM = (77.0, 97.0)  # half axes of the head, left-right and front-back
_BRAIN_DEPTH_MM = 14.0  # from the skin to the surface of the brain
_CORTEX_MM = 2.9
_INSULA = [  # (x, y, radius) [mm] along the lateral fissure, from the surface to the insula and along it
    (66, -20, 0.6),
    (54, -19, 0.8),
    (46, -15, 1.3),
    (41, -8, 0.6),
    (40, 0, 0.5),
    (42, 9, 0.7),
    (47, 20, 0.3),
]


def head_phantom(
    shape: Sequence[int] = (256, 256), num_slices: int = 1, seed: int = 0, phase: bool = True
) -> NDArray[np.complex64]:
    """Draw the phantom.

    Args:
        shape (sequence of ints): Matrix size (y, x); the field of view is always :data:`FOV_MM`.
        num_slices (int): Number of slices, :data:`SLICE_MM` apart, centered on the basal ganglia.
        seed (int): Every seed gives a different head.
        phase (bool): Whether the image has a smooth phase, as measured images do.

    Returns:
        array: complex64 (num_slices, y, x), maximum magnitude 1. The front of the head is at the top, the left side
        of the patient on the right.

    Raises:
        ValueError: A size is not positive.
    """
    if len(shape) != 2 or min(*shape, num_slices) < 1:
        raise ValueError(f"head_phantom needs a shape (y, x) and num_slices of at least 1, got {shape}, {num_slices}")
    heights = SLICE_MM * (np.arange(num_slices) - (num_slices - 1) / 2)
    image = np.stack([_draw_slice(shape[0], shape[1], z, seed, phase) for z in heights])
    return (image / np.abs(image).max()).astype(np.complex64)


class RandomWaves:
    """A band-limited random function of unit variance over space: a sum of plane waves.

    Args:
        rng (Generator): Source of directions, wavelengths and phases.
        wavelengths (tuple of floats): Shortest and longest wavelength [mm].
        count (int): Number of waves.
    """

    def __init__(self, rng: np.random.Generator, wavelengths: tuple[float, float], count: int = 24) -> None:
        direction = rng.standard_normal((count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        self._k = direction * (2 * np.pi / rng.uniform(*wavelengths, size=(count, 1)))
        self._phase = rng.uniform(0, 2 * np.pi, count)

    def __call__(self, x: Array, y: Array, z: float) -> Array:
        """Return the values (ny, nx) at the coordinates x (1, nx) and y (ny, 1) and the height z, all in mm."""
        kx, ky, kz = self._k.T[:, :, None]
        along_y = np.exp(1j * (ky * y.T + kz * z + self._phase[:, None]))
        along_x = np.exp(1j * kx * x)
        return np.sqrt(2 / len(self._k)) * (along_y.T @ along_x).real


def _draw_slice(ny: int, nx: int, z: float, seed: int, phase: bool) -> NDArray[np.complex128]:
    """Draw one slice at height z [mm] above the basal ganglia."""
    rng = np.random.default_rng(seed)
    pixel_y, pixel_x = FOV_MM / ny, FOV_MM / nx
    y = ((np.arange(ny * _OVERSAMPLING) + 0.5) / _OVERSAMPLING - ny / 2)[:, None] * pixel_y
    x = ((np.arange(nx * _OVERSAMPLING) + 0.5) / _OVERSAMPLING - nx / 2)[None, :] * pixel_x
    canvas = _Canvas(x, y, z, (pixel_y / _OVERSAMPLING, pixel_x / _OVERSAMPLING), rng)

    depth = canvas.draw_scalp_and_skull()
    fluid = canvas.draw_cortex(depth)
    canvas.draw_deep_structures()
    canvas.draw_vessels(fluid, depth)
    image = canvas.finish(phase)
    return image.reshape(ny, _OVERSAMPLING, nx, _OVERSAMPLING).mean(axis=(1, 3))


def _superellipse(x: Array, y: Array) -> Array:
    """Return the distance from the origin in a norm between the Euclidean and the maximum norm."""
    return (np.abs(x) ** 2.3 + np.abs(y) ** 2.3) ** (1 / 2.3)


class _Canvas:
    """A slice that is painted tissue over tissue.

    Attributes:
        x, y (arrays): Coordinates [mm], deformed by a few millimeters so that nothing is exactly symmetric.
        z (float): Height of the slice [mm].
        image (array): Signal painted so far.
    """

    def __init__(self, x: Array, y: Array, z: float, pixel: tuple[float, float], rng: np.random.Generator) -> None:
        self.rng, self.pixel, self.z = rng, pixel, z
        self._grid = (x, y, z)
        self.x = x + 1.6 * self.waves((60, 120)) + 0.7 * self.waves((18, 40))
        self.y = y + 1.6 * self.waves((60, 120)) + 0.7 * self.waves((18, 40))
        self.image = np.zeros(self.x.shape)

    def waves(self, wavelengths: tuple[float, float], count: int = 24) -> Array:
        """Return random waves over the slice, of unit variance."""
        return RandomWaves(self.rng, wavelengths, count)(*self._grid)

    def paint(self, distance: Array, signal: Array | float, edge: float = 0.0) -> None:
        """Paint where a signed distance [mm] is positive, with an edge one fine pixel or ``edge`` [mm] wide."""
        cover = np.clip(distance / max(*self.pixel, edge) + 0.5, 0, 1)
        self.image += cover * (signal - self.image)

    def distance(self, level: Array) -> Array:
        """Return the signed distance [mm] from the zero level of a function, to first order."""
        dy, dx = np.gradient(level, *self.pixel)
        return level / np.maximum(np.hypot(dx, dy), 1e-3)

    def capsule(self, points: Sequence[tuple[float, float, float]], side: int = 1) -> Array:
        """Return the signed distance [mm] from a chain of (x, y, radius), mirrored for side -1; positive inside."""
        best = np.full(self.x.shape, -np.inf)
        for (x0, y0, r0), (x1, y1, r1) in pairwise(points):
            dx, dy = x1 - x0, y1 - y0
            along = ((self.x * side - x0) * dx + (self.y - y0) * dy) / (dx * dx + dy * dy)
            along = np.clip(along, 0, 1)
            gap = np.hypot(self.x * side - x0 - along * dx, self.y - y0 - along * dy)
            best = np.maximum(best, r0 + along * (r1 - r0) - gap)
        return best

    def ellipse(self, center: tuple[float, float], axes: tuple[float, float], tilt: float, side: int) -> Array:
        """Return the signed distance [mm] from an ellipse rotated by ``tilt`` degrees, to first order."""
        c, s = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
        x, y = self.x * side - center[0], self.y - center[1]
        return self.distance(1 - np.hypot((c * x + s * y) / axes[0], (c * y - s * x) / axes[1]))

    def draw_scalp_and_skull(self) -> Array:
        """Paint skin, fat, muscle, bone, marrow and fluid; return the depth below the surface of the brain [mm]."""
        size = 1 - (self.z / 140) ** 2
        x, y, _ = self._grid
        width = _HEAD_MM[0] * size * (1 + 0.0012 * y)  # wider at the back
        ragged = 0.01 * self.waves((90, 200)) + 0.003 * self.waves((40, 70))
        depth = self.distance(1 + ragged - _superellipse(x / width, y / (_HEAD_MM[1] * size)))

        uneven = self.waves((35, 80))
        thick = 1 + 0.18 * uneven
        temple = 2.2 * np.exp(-(((self.y + 22) / 26) ** 2)) * np.abs(self.x) / _HEAD_MM[0]
        tissue = T2_WEIGHTED
        grain = 1 + 0.1 * self.waves((3, 9)) + 0.12 * self.waves((15, 40))
        self.paint(depth, tissue["skin"])
        self.paint(depth - 1.3, tissue["fat"] * grain)
        self.paint(depth - 3.2 * thick, tissue["muscle"] * (1 + 0.3 * self.waves((2.5, 6))))
        skull = 3.6 * thick + temple
        self.paint(depth - skull, tissue["bone"])
        self.paint(depth - skull - 1.6, tissue["marrow"] * grain)
        self.paint(depth - np.minimum(skull + 4.6 * thick, _BRAIN_DEPTH_MM - 4.0), tissue["bone"])
        self.paint(depth - _BRAIN_DEPTH_MM + 1.5 + 0.5 * uneven, tissue["fluid"])
        return depth - _BRAIN_DEPTH_MM

    def draw_cortex(self, depth: Array) -> Array:
        """Paint white matter, gray matter along the sulci and fluid inside them; return the distance of the fluid."""
        ragged = 0.3 * self.waves((6, 15))
        fissures = self._fissures()
        around = 19 * np.arctan2(self.x, -self.y * _HEAD_MM[0] / _HEAD_MM[1])
        side = np.abs(self.x)
        ends = np.minimum(depth - 9, 52 - np.abs(np.abs(self.y) - 95))  # folds only where the fissure is open
        folds = [
            self._sulci(around, depth, depth > 0),
            self._sulci((self.y + 0.4 * side) * (2 * np.pi / 22), 1.5 * side, ends > 0),
        ]
        sulci = np.maximum.reduce([fissures, -depth, *folds])
        to_fluid = distance_transform_edt(sulci <= 0, sampling=self.pixel)
        cortex = _CORTEX_MM * (1 + 0.12 * self.waves((12, 40)))
        gray = T2_WEIGHTED["gray"] * (1 + 0.04 * self.waves((3, 10)) + 0.06 * self.waves((15, 60)))
        white = T2_WEIGHTED["white"] * (
            1 + 0.025 * self.waves((3, 10)) + 0.04 * self.waves((15, 40)) + 0.05 * self.waves((40, 90))
        )
        self.paint(depth, white)
        self.paint(np.minimum(depth, cortex - to_fluid + ragged), gray, edge=1.4)
        fluid = np.maximum.reduce([fissures, -depth, *(fold - 0.25 - 0.3 * self.waves((15, 40)) for fold in folds)])
        self.paint(np.minimum(depth, fluid), T2_WEIGHTED["fluid"])
        return fluid

    def _sulci(self, wave_phase: Array, depth: Array, where: NDArray[np.bool_]) -> Array:
        """Return the signed distance [mm] from sulci, the zero levels of a wave along the surface; positive inside.

        Args:
            wave_phase (array): Phase of the wave [rad]; one sulcus per pi.
            depth (array): Depth [mm] below the surface that the sulci are cut from.
            where (array): Where there may be sulci.
        """
        level = np.sin(wave_phase + 1.3 * self.waves((25, 50))) + 0.45 * self.waves((14, 24))
        reach = np.clip(15 + 6 * self.waves((14, 35)), 4, 26)
        taper = np.clip(1 - depth / reach, 0, 1)
        width = 0.75 * np.sqrt(taper) - np.abs(self.distance(level))
        return np.where((taper > 0) & where, width, -1.0)

    def _fissures(self) -> Array:
        """Return the signed distance [mm] of the fluid between the hemispheres and around the insula."""
        wiggle = 1.2 * self.waves((18, 40))
        front = min(-36.0 + 0.8 * self.z, -30.0)
        back = max(44.0 - 0.6 * self.z, 36.0)
        open_ = np.maximum(front - self.y, self.y - back)
        fissure = np.minimum(0.8 - np.abs(self.x + 0.4 * wiggle), open_)
        for side in (-1, 1):
            insula = self.capsule(_INSULA, side)
            fissure = np.maximum(fissure, insula + 0.3 * wiggle)
        return fissure

    def draw_deep_structures(self) -> None:
        """Paint the basal ganglia, the thalamus and the ventricles."""
        tissue = T2_WEIGHTED
        ragged = 0.7 * self.waves((9, 22))
        speckle = 1 + 0.025 * self.waves((3, 8))
        for side in (-1, 1):
            claustrum = self.capsule([(36, -14, 0.5), (37, 0, 0.6), (35, 10, 0.4)], side)
            self.paint(claustrum, tissue["putamen"])
            self.paint(self.ellipse((27, -5), (5.5, 15), -14, side) + ragged, tissue["putamen"] * speckle, edge=1.6)
            self.paint(self.ellipse((20.5, -2), (4.0, 8.5), -24, side) + ragged, tissue["pallidum"] * speckle, edge=1.6)
            self.paint(self.ellipse((9.5, 14), (7.5, 13), 18, side) + ragged, tissue["thalamus"] * speckle, edge=1.6)
            self.paint(self.ellipse((14.5, -21), (6.0, 9.0), 18, side) + ragged, tissue["caudate"] * speckle, edge=1.6)
        self.paint(self.capsule([(0, -2, 1.3), (0, 8, 1.0), (0, 24, 1.2)]) + 0.3 * ragged, tissue["fluid"])
        for side in (-1, 1):
            horn = self.capsule([(4, -12, 1.2), (5.5, -18, 2.6), (8, -26, 3.3), (13, -33, 1.8)], side)
            atrium = self.capsule([(15, 27, 1.6), (21, 34, 3.4), (24, 42, 3.6), (22, 54, 1.0)], side)
            self.paint(np.maximum(horn, atrium) + ragged + 0.04 * self.z, tissue["fluid"])
            self.paint(self.capsule([(19, 33, 0.8), (22, 40, 1.6)], side) + ragged, tissue["choroid"])

    def draw_vessels(self, fluid: Array, depth: Array) -> None:
        """Paint the falx, flow voids in the fissures and perivascular spaces."""
        falx = np.minimum.reduce([0.45 - np.abs(self.x), fluid, depth])
        self.paint(falx, T2_WEIGHTED["falx"])
        self.paint(self.capsule([(0, 80, 2.6), (0, 85, 3.0)]), T2_WEIGHTED["vessel"])
        for _ in range(60):
            x, y, r = self.rng.uniform(-66, 66), self.rng.uniform(-84, 84), self.rng.uniform(0.5, 1.1)
            dot = r - np.hypot(self.x - x, self.y - y)
            self.paint(np.minimum.reduce([dot, fluid + 0.4, depth + 1]), T2_WEIGHTED["vessel"])
        for _ in range(25):
            x, y = self.rng.uniform(-45, 45), self.rng.uniform(-60, 60)
            spot = 0.45 - np.hypot(self.x - x, self.y - y)
            self.paint(np.minimum(spot, depth - 12), 0.75)

    def finish(self, phase: bool) -> NDArray[np.complex128]:
        """Shade the slice as surface coils and transmit field do, and give it a smooth phase."""
        image = self.image * (1 + 0.06 * self.waves((150, 300), count=8))
        angle = 0.9 * self.waves((120, 260), count=8) + 0.15 * self.waves((40, 80))
        return image * np.exp(1j * angle) if phase else image.astype(complex)
