"""The standard error of a whole measurement."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hggdp_plugin._typing import Array
from hggdp_plugin.app import HGGDPRecon
from hggdp_plugin.conformal import ConformalFactor, sampling_family
from hggdp_plugin.io.raw import RawData
from hggdp_plugin.prior import ScorePrior
from hggdp_plugin.schedule import NoiseSchedule
from hggdp_plugin.uncertainty import COPIES, QUICK, UncertaintyMap, stored_factor, summarize
from hggdp_plugin.volume.batching import MAX_SLICES
from hggdp_plugin.volume.progress import Progress, ReportingApp

_logger = logging.getLogger(__name__)


@dataclass
class VolumeUncertainty:
    """What is asked for, and what :func:`hggdp_plugin.volume.reconstruct.reconstruct` finds.

    Attributes:
        copies: Number of repeated scans.
        std: Standard error of the image, float32, of its shape and in its units.
        frames: Per frame its index (repetition, contrast, phase, set, slice), its expected PSNR (dB), the PSNR's lower
            bound, None if it is not known, and the part of the object whose standard error exceeds a tenth of the local
            signal.
        family: Kind of sampling.
        factor: The conformal factor in ``std``; None: not calibrated.
    """

    copies: int = COPIES
    std: Array | None = None
    frames: list[dict[str, object]] = field(default_factory=list)
    family: str = ""
    factor: ConformalFactor | None = None

    def finish(self, raw: RawData, image: Array, std: Array, prior: ScorePrior, schedule: NoiseSchedule) -> None:
        """Take the map of all frames, and log what it says.

        Args:
            raw (RawData): The measurement.
            image (array): Image (repetition, contrast, phase, set, slice, y, x).
            std (array): Its standard error.
            prior (ScorePrior): The prior.
            schedule (NoiseSchedule): Schedule of the reconstruction.
        """
        self.family = sampling_family(raw.mask, raw.n_coils)
        self.factor = stored_factor(prior, self.family, schedule, QUICK)
        self.std, found = std, summarize(std, image, self.family, self.factor)
        if self.factor is None:
            _logger.warning(
                "No calibration of this prior and method for %s: the standard error is probably too small.", self.family
            )
        for index in np.argwhere(abs(image).max(axis=(-2, -1)) > 0):
            place = tuple(index)
            bound = float(found.psnr_bound[place])
            record = {
                "frame": index.tolist(),
                "psnr": float(found.psnr[place]),
                "psnr_bound": bound if np.isfinite(bound) else None,
                "large_share": float(found.large_share[place]),
            }
            self.frames.append(record)
            _logger.info("%s", describe(record, image.shape))


def describe(frame: Mapping[str, object], shape: tuple[int, ...]) -> str:
    """Describe what is known about the error of a frame, in one line.

    Args:
        frame (mapping): One of :attr:`VolumeUncertainty.frames`.
        shape (tuple of int): Shape of the image.

    Returns:
        str: The line.
    """
    index, psnr, bound, share = (frame[name] for name in ("frame", "psnr", "psnr_bound", "large_share"))
    axes = ("repetition", "contrast", "phase", "set", "slice")
    place = [f"{name} {i + 1}" for name, i, n in zip(axes, index, shape, strict=False) if n > 1 or name == "slice"]  # type: ignore[call-overload]
    above = "" if bound is None else f", above {bound:.1f} dB in nine of ten slices"
    text = ", ".join(place)
    return (
        f"{text[0].upper()}{text[1:]}: expected PSNR {psnr:.1f} dB{above}; standard error above 10 % of the signal in"
        f" {100 * share:.0f} % of the object."  # type: ignore[operator]
    )


class BatchMap(ReportingApp, UncertaintyMap):
    """:class:`UncertaintyMap` of one batch, which reports its updates to the progress of the volume."""


def batch_std(
    recon: HGGDPRecon, image: Array, copies: int, noise_var: float | None, progress: Progress, slices: float
) -> Array:
    """Return the standard error of the images of a batch.

    Args:
        recon (HGGDPRecon): The reconstruction.
        image (array): The images (frames, H, W).
        copies (int): Number of repeated scans.
        noise_var (float or None): Noise variance of a complex sample, all of it.
        progress (Progress): Progress of the volume.
        slices (float): What the work counts for.

    Returns:
        array: float32 (frames, H, W).
    """
    at_a_time = max(MAX_SLICES // len(image), 1)
    app = BatchMap(recon, image, copies=copies, noise_var=noise_var, copies_at_a_time=at_a_time, show_pbar=False)
    app.progress, app.slices_per_update = progress, slices / app.alg.max_iter
    std: Array = app.run()
    return std
