"""The error of a reconstruction, estimated without a reference: the scan is repeated with the image as the object."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import sigpy as sp
from scipy.ndimage import gaussian_filter

from hggdp_plugin._typing import Array
from hggdp_plugin.app import HGGDPRecon
from hggdp_plugin.conformal import ConformalFactor, describe_method, read_calibration, sampling_family
from hggdp_plugin.linops import flips
from hggdp_plugin.prior import ScorePrior
from hggdp_plugin.problem import SenseProblem, estimate_noise_var
from hggdp_plugin.sampling import build_sampler
from hggdp_plugin.schedule import NoiseSchedule
from hggdp_plugin.solvers import run
from hggdp_plugin.validation import check_counts

#: Largest shift of the image in a repeated scan, as a part of its size.
MAX_SHIFT = 0.05
#: Variance of the noise over that of data consistency, which is chosen for the highest PSNR (benchmarks/noise.py).
NOISE_OVER_CONSISTENCY = 2.0
#: Standard deviation in pixels of the Gaussian that smooths the variance: few copies say little about one pixel.
SMOOTHING = 2.0
#: The local signal is the magnitude smoothed by a Gaussian of this many pixels. The object is where it exceeds this
#: part of its 99th percentile.
SIGNAL_WIDTH, OBJECT_LEVEL = 2.0, 0.1
#: Number of repeated scans.
COPIES = 8
#: Schedule of the repeated reconstructions: eight cost what three reconstructions by the default schedule cost.
QUICK = NoiseSchedule.fast(levels=10, sigma_max=0.1, sigma_min=0.005, eta=0.1, momentum=0.6)
#: Part of the local signal above which a standard error counts as large.
LARGE_ERROR = 0.1

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """What is known about the error of images.

    Attributes:
        std: Standard error, the root of E|error|^2 of the complex image, float32 (..., H, W) in the image's units.
        psnr: Expected PSNR of the complex image (dB), peak: its maximum magnitude; (...).
        psnr_bound: What the PSNR exceeds in nine of ten slices; NaN where there is no calibration.
        large_share: Part of the object's pixels whose standard error exceeds a tenth of the local signal; (...).
        family: Kind of sampling.
        factor: The conformal factor that ``std`` contains; None: not calibrated, ``std`` is probably too small.
    """

    std: Array
    psnr: Array
    psnr_bound: Array
    large_share: Array
    family: str
    factor: ConformalFactor | None


class UncertaintyMap(sp.app.App):
    r"""Map of the standard error of a reconstruction.

    The scan is repeated with the reconstruction as the object, flipped, turned and shifted, and with new noise; the
    error that comes out has the size that the error of the reconstruction probably has
    (:class:`EquivariantBootstrap`). A factor that was learned on other slices, and is stored beside the prior, makes up
    for what this can't show: detail that is missing from the reconstruction is missing from the repeated scans too.

    Args:
        recon (HGGDPRecon): The reconstruction. It is run if it has not been.
        image (None or array): The image, (..., H, W) in the units of the data; None: that of ``recon``.
        copies (int): Number of repeated scans.
        noise_var (None or float): Noise variance E|n|^2 of a complex sample, all of it: 1 for prewhitened data. None:
            the ``noise_var`` that ``recon`` was given, else estimated at the periphery of k-space, roughly.
        schedule (None or NoiseSchedule): Schedule of the repeated reconstructions; None: :data:`QUICK`.
        priors (sequence of ScorePrior): Other priors to reconstruct with. Their disagreement is added to the variance.
        noisy_reference (bool): Map the error against a fully sampled image of the same scan, in place of the object
            without noise: the noise of the samples that nobody measured is added.
        copies_at_a_time (None or int): Copies that go through the network together; None: all.
        show_pbar (bool): Show a progress bar.
        leave_pbar (bool): Leave the bar when finished.

    Attributes:
        result (Uncertainty): The map and what follows from it, after :meth:`run`, which returns the map alone.

    Raises:
        ValueError: An argument does not fit.

    Example:
        >>> from hggdp_plugin.simulation import head_phantom
        >>> ksp = sp.fft(head_phantom((64, 64)), axes=(-2, -1))
        >>> ksp[:, 1:24:2] = 0
        >>> app = UncertaintyMap(HGGDPRecon(ksp, show_pbar=False), copies=2, show_pbar=False)
        >>> app.run().shape
        (64, 64)

    References:
        Tachella, J., & Pereyra, M. (2024). Equivariant bootstrapping for uncertainty quantification in imaging inverse
        problems. AISTATS, PMLR 238.

        Angelopoulos, A. N., Kohli, A. P., Bates, S., Jordan, M. I., Malik, J., Alshaabi, T., Upadhyayula, S., & Romano,
        Y. (2022). Image-to-image regression with distribution-free uncertainty quantification and applications in
        imaging. ICML, PMLR 162.
    """

    def __init__(
        self,
        recon: HGGDPRecon,
        image: Array | None = None,
        *,
        copies: int = COPIES,
        noise_var: float | None = None,
        schedule: NoiseSchedule | None = None,
        priors: Sequence[ScorePrior] = (),
        noisy_reference: bool = False,
        copies_at_a_time: int | None = None,
        show_pbar: bool = True,
        leave_pbar: bool = True,
    ) -> None:
        check_counts(copies=copies, copies_at_a_time=copies_at_a_time)
        if recon.processes is not None:
            raise ValueError("recon: repeated scans need all coils in one process; make it without comm")
        if recon.problem.ndim == 3:
            raise ValueError("recon: the uncertainty of volumes is not implemented; give the reconstruction of slices")
        if recon.problem.maps > 1:
            raise ValueError("recon: the uncertainty is that of one image; make it with one set of maps")
        if not recon.alg.done():
            recon.run()
        self.recon, self.problem, self.device, self.priors = recon, recon.problem, recon.device, priors
        self.copies, self.schedule, self.noisy_reference = copies, schedule or QUICK, noisy_reference
        with self.device:
            x = recon.image if image is None else sp.to_device(image, self.device)
            if x.shape != self.problem.start.shape:
                raise ValueError(f"image: expected shape {self.problem.start.shape}, got {x.shape}")
            self.x = (x / self.problem.scale).astype(np.complex64)
            self.noise_var = _true_noise_var(recon, noise_var)
            self.rng = self.device.xp.random.default_rng(recon.seed + 1)
            transforms = random_transforms(x.shape, copies, np.random.default_rng(recon.seed + 1))
            alg = EquivariantBootstrap(
                self._rescan, self.x, transforms, batch_size=copies_at_a_time, support=self.problem.support
            )
        super().__init__(alg, show_pbar, leave_pbar)

    def _rescan(self, images: Array) -> Array:
        """Simulate the scan of images (n, ..., H, W), and reconstruct it."""
        problem = self.problem.resimulate(images, self.noise_var, self.rng)
        seed = self.recon.seed + 1 + self.alg.iter
        return self._reconstruct(self.recon.prior, problem, seed)

    def _reconstruct(self, prior: ScorePrior, problem: SenseProblem, seed: int) -> Array:
        x = run(build_sampler(prior, problem, self.schedule, seed, self.recon.max_cg_iter))
        return x if x.ndim == problem.start.ndim else x.mean(axis=-3)

    def _output(self) -> Array:
        with self.device:
            variance = smooth(self.alg.variance)
            for prior in self.priors:
                other = self._reconstruct(prior, self.problem, self.recon.seed)
                variance = variance + smooth(abs(other - self.x) ** 2) / (2 * len(self.priors))
            family, factor = self.calibration()
            if factor is not None:
                variance = np.float32(factor.factor**2) * variance
            if self.noisy_reference:
                variance = variance + self._unmeasured_noise()
            std = abs(self.problem.scale) * variance**0.5
        self.result = summarize(std.astype(np.float32), self.x * self.problem.scale, family, factor)
        return self.result.std

    def _unmeasured_noise(self) -> Array:
        """Return the variance in each pixel of the noise in the part of k-space that was left out."""
        problem = self.problem
        n_batch_axes = problem.start.ndim - 2
        axes = tuple(range(n_batch_axes, problem.y.ndim))
        n_samples = (problem.y != 0).sum(axis=axes) / problem.y.shape[n_batch_axes]
        share = n_samples / np.prod(problem.start.shape[-2:])
        return (1 - share.clip(0, 1)).astype(np.float32).reshape(*share.shape, 1, 1) * self.noise_var

    def calibration(self) -> tuple[str, ConformalFactor | None]:
        """Return the kind of sampling, and its conformal factor if there is one for this prior and method."""
        problem = self.problem
        mask = (sp.to_device(problem.y) != 0).any(axis=-3) if problem.is_cartesian else None
        family = sampling_family(mask, problem.y.shape[problem.start.ndim - 2])
        if self.priors:
            return family, None
        return family, stored_factor(self.recon.prior, family, self.recon.schedule, self.schedule)


def stored_factor(
    prior: ScorePrior, family: str, schedule: NoiseSchedule, repeated: NoiseSchedule
) -> ConformalFactor | None:
    """Return the conformal factor that is stored beside a prior, or None.

    Args:
        prior (ScorePrior): The prior.
        family (str): Kind of sampling.
        schedule (NoiseSchedule): Schedule of the reconstruction.
        repeated (NoiseSchedule): Schedule of the repeated reconstructions.
    """
    stored = None if prior.path is None else read_calibration(prior.path)
    return None if stored is None else stored.factor(family, describe_method(schedule, repeated))


def summarize(std: Array, image: Array, family: str, factor: ConformalFactor | None) -> Uncertainty:
    """Return the map with what follows from it.

    Args:
        std (array): Standard error (..., H, W).
        image (array): The image.
        family (str): Kind of sampling.
        factor (ConformalFactor or None): The factor that ``std`` contains.
    """
    host, magnitude = sp.to_device(std), abs(sp.to_device(image))
    signal = local_signal(magnitude)
    inside = object_mask(magnitude)
    peak, mse = magnitude.max(axis=(-2, -1)), (host.astype(np.float64) ** 2).mean(axis=(-2, -1))
    known = (peak > 0) & (mse > 0)
    psnr = np.where(known, 20 * np.log10(np.where(known, peak, 1) / np.sqrt(np.where(known, mse, 1))), np.inf)
    bound = np.full_like(psnr, np.nan) if factor is None else psnr - 20 * np.log10(factor.slice_factor)
    large = (inside & (host > LARGE_ERROR * signal)).sum(axis=(-2, -1)) / np.maximum(inside.sum(axis=(-2, -1)), 1)
    return Uncertainty(std, psnr, bound, large, family, factor)


def local_signal(magnitude: np.ndarray) -> np.ndarray:
    """Return the smoothed magnitude of images (..., H, W)."""
    return smooth(magnitude, SIGNAL_WIDTH)


def object_mask(magnitude: np.ndarray) -> np.ndarray:
    """Return where images (..., H, W) show the object, bool."""
    signal = local_signal(magnitude)
    return signal > OBJECT_LEVEL * np.percentile(signal, 99, axis=(-2, -1), keepdims=True)


def smooth(values: Array, width: float = SMOOTHING) -> Array:
    """Smooth images (..., H, W) by a Gaussian of that many pixels."""
    device = sp.get_device(values)
    sigma = [0.0] * (values.ndim - 2) + [width, width]
    smoothed = gaussian_filter(sp.to_device(values).astype(np.float32), sigma, mode="nearest")
    return sp.to_device(smoothed, device)


def _true_noise_var(recon: HGGDPRecon, noise_var: float | None) -> Array:
    """Return the variance of the noise in the units of the problem; that of data consistency may be another."""
    problem = recon.problem
    noise_var = recon.noise_var or None if noise_var is None else noise_var
    if noise_var is not None:
        return (noise_var**0.5 / abs(problem.scale)) ** 2
    if recon.noise_var is None and problem.noise_var.any():
        return NOISE_OVER_CONSISTENCY * problem.noise_var
    return NOISE_OVER_CONSISTENCY * estimate_noise_var(problem.y) if problem.is_cartesian else problem.noise_var


class EquivariantBootstrap(sp.alg.Alg):
    r"""Equivariant bootstrap: repeat the scan with the reconstruction as the object, and see how wrong it comes out.

    For a reconstruction :math:`\hat x` and transforms :math:`T_k` under which images remain images (flips, quarter
    turns, shifts),

    .. math::
        e_k = T_k^H \, R(A T_k \hat x + n_k) - \hat x, \quad v = \frac{1}{n} \sum_k |e_k|^2

    where A simulates the scan, :math:`n_k` is new noise and R is the method of reconstruction. The transforms make the
    operator's null space meet other parts of the image each time; without them the reconstruction, which has nothing
    there that R could not find, would come out almost unchanged.

    Args:
        rescan (function): ``images -> R(A images + noise)`` for images (n, ..., H, W).
        x (array): Reconstruction, complex (..., H, W).
        transforms (sequence of Linop): Unitary, from and to images of the shape of ``x``.
        batch_size (None or int): Transforms at a time, which go through the network as one batch; None: all.
        support (None or array): Where images may differ from 0, broadcasts to ``x``. What a transform moves out of it
            cannot be scanned, and does not count.

    Attributes:
        variance (array): v, the mean squared error E|e|^2 so far, float32 (..., H, W).
        x (array): The same.

    References:
        Tachella, J., & Pereyra, M. (2024). Equivariant bootstrapping for uncertainty quantification in imaging inverse
        problems. AISTATS, PMLR 238.
    """

    def __init__(
        self,
        rescan: Callable[[Array], Array],
        x: Array,
        transforms: Sequence[sp.linop.Linop],
        *,
        batch_size: int | None = None,
        support: Array | None = None,
    ) -> None:
        size = batch_size or len(transforms)
        self.batches = [transforms[i : i + size] for i in range(0, len(transforms), size)]
        self.rescan, self.image, self.support = rescan, x, support
        self.device = sp.get_device(x)
        with self.device:
            xp = self.device.xp
            self.total = xp.zeros(x.shape, np.float32)
            self.count = xp.zeros(x.shape, np.float32)
            self.inside = xp.ones(x.shape, bool) if support is None else xp.broadcast_to(support, x.shape)
        super().__init__(len(self.batches))

    def _update(self) -> None:
        transforms = self.batches[self.iter]
        with self.device:
            xp = self.device.xp
            moved = xp.stack([T(self.image) * self.inside for T in transforms])
            errors = self.rescan(moved) - moved
            for T, error in zip(transforms, errors, strict=True):
                seen = abs(T.H(self.inside.astype(np.complex64))) > 0.5
                self.total += seen * abs(T.H(error)) ** 2
                self.count += seen

    @property
    def variance(self) -> Array:
        """The mean squared error so far; 0 where nothing was seen."""
        with self.device:
            return self.total / self.device.xp.maximum(self.count, 1)

    @property
    def x(self) -> Array:
        """The same as :attr:`variance`."""
        return self.variance


def random_transforms(shape: Sequence[int], n: int, rng: np.random.Generator) -> list[sp.linop.Linop]:
    """Draw flips, quarter turns and shifts of images.

    Args:
        shape (sequence of int): Shape of the images (..., H, W). Quarter turns need H = W.
        n (int): Number of transforms; the first eight, or four, have different orientations.
        rng (Generator): NumPy random generator.

    Returns:
        list of Linop: Unitary, from and to ``shape``.
    """
    orientations = [T for T in flips(shape) if list(T.oshape) == list(shape)]
    order = np.concatenate([rng.permutation(len(orientations)) for _ in range(-(-n // len(orientations)))])
    limits = [max(1, round(MAX_SHIFT * size)) for size in shape[-2:]]
    transforms = []
    for which in order[:n]:
        shift = [int(rng.integers(-limit, limit + 1)) for limit in limits]
        transforms.append(sp.linop.Circshift(shape, shift, axes=(-2, -1)) * orientations[which])
    return transforms
