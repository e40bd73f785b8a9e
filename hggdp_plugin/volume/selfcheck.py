"""The self-check of a whole measurement: which prior predicts its samples best, and does it fit each slice."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import sigpy as sp

from hggdp_plugin._typing import Array
from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.raw import RawData
from hggdp_plugin.prior import ScorePrior
from hggdp_plugin.selfcheck import SelfCheck, SliceData, choose_prior, mean_prediction_error
from hggdp_plugin.volume.calibration import CoilMapEstimator

#: Frames that are checked to choose a prior.
FRAMES_TO_CHOOSE = 8

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VolumeCheck:
    """Checks of the frames of a measurement.

    Attributes:
        frames: Index of each checked frame (repetition, contrast, phase, set, slice).
        checks: The check of each prior, by name; its arrays have the shape (frames,).
    """

    frames: tuple[tuple[int, ...], ...]
    checks: Mapping[str, SelfCheck]

    @property
    def best(self) -> str:
        """Name of the prior with the lowest prediction error."""
        return min(self.checks, key=lambda name: mean_prediction_error(self.checks[name]))

    def records(self, name: str) -> list[dict[str, object]]:
        """Return the figures of a prior, frame by frame, in values that JSON can hold; None where nothing is known."""
        check = self.checks[name]
        return [
            {
                "frame": list(frame),
                "prediction_error": _number(check.prediction_error[i]),
                "residual": _number(check.residual[i]),
                "prior_fits": bool(check.prior_fits[i]),
                "data_consistent": bool(check.data_consistent[i]),
            }
            for i, frame in enumerate(self.frames)
        ]


def check_frames(
    raw: RawData,
    priors: Mapping[str, ScorePrior],
    mps: Array | None = None,
    noise_var: float | None = None,
    *,
    n_frames: int | None = None,
    calib_width: int | None = None,
    seed: int = 0,
    device: sp.Device = sp.cpu_device,
) -> VolumeCheck:
    """Check priors on the frames of a measurement.

    Args:
        raw (RawData): The measurement.
        priors (mapping): Priors by name.
        mps (array or None): Coil sensitivity maps (slices, coils, y, x) or (coils, y, x); None: estimated.
        noise_var (float or None): Noise variance E|n|^2 of a complex k-space sample; None: 1 for prewhitened data, else
            estimated.
        n_frames (int or None): Number of frames to check, evenly spaced; None: all.
        calib_width (int or None): Width of the calibration region; None: that of the fully sampled region.
        seed (int): Seed.
        device (Device): Where to compute.

    Returns:
        VolumeCheck: The checks.

    Raises:
        InputError: The measurement needs 3D data consistency.
    """
    frames, found = [], {name: list[SelfCheck]() for name in priors}
    data_of_frames = frame_data(
        raw,
        mps,
        noise_var,
        n_frames=n_frames,
        calib_width=calib_width,
        device=device,
        quiet=True,  # the reconstruction logs how the maps are made
    )
    for frame, data in data_of_frames:
        _, checks = choose_prior(*data, priors=priors, seed=seed, device=device)
        frames.append(frame)
        for name, check in checks.items():
            found[name].append(check)
    return VolumeCheck(tuple(frames), {name: SelfCheck.stack(checks) for name, checks in found.items()})


def frame_data(
    raw: RawData,
    mps: Array | None = None,
    noise_var: float | None = None,
    *,
    n_frames: int | None = None,
    calib_width: int | None = None,
    device: sp.Device = sp.cpu_device,
    quiet: bool = False,
) -> Iterator[tuple[tuple[int, ...], SliceData]]:
    """Yield the frames of a measurement one after the other, with their maps and noise variance.

    Args:
        raw (RawData): The measurement.
        mps (array or None): As in :func:`check_frames`, like the other arguments.
        noise_var (float or None): Noise variance.
        n_frames (int or None): Number of frames, evenly spaced.
        calib_width (int or None): Width of the calibration region.
        device (Device): Where to compute the maps.
        quiet (bool): Do not log how the maps are made.

    Yields:
        tuple: Index of the frame (repetition, contrast, phase, set, slice), and its data.

    Raises:
        InputError: The measurement needs 3D data consistency.
    """
    if len(raw.grid) == 3:
        problem = "a volume with 3D data consistency, in which the prior cannot be checked or adapted"
        raise InputError(raw.source, problem, "name the prior (--prior), without --self-check")
    measured = np.argwhere(raw.measured_frames)
    if n_frames is not None and n_frames < len(measured):
        measured = measured[np.linspace(0, len(measured) - 1, n_frames).round().astype(int)]
    maps: Callable[[int], Array]
    if mps is None:
        maps = CoilMapEstimator(raw, calib_width, device=device, quiet=quiet)
    else:
        maps = np.broadcast_to(mps, (raw.n_slices, raw.n_coils, *raw.grid)).__getitem__
    if noise_var is None and raw.whitened:
        noise_var = 1.0
    for index in measured:
        frame = tuple(map(int, index))
        weights = None if raw.mask is None else raw.mask[frame][None].astype(np.float32)
        coord = raw.coord if raw.coord is None or raw.coord.ndim == 3 else raw.coord[frame]
        yield frame, SliceData(raw.ksp[frame], maps(frame[4]), noise_var, weights, coord)


def report_check(volume: VolumeCheck, name: str) -> str:
    """Log what the check of a prior says, and warn where it does not fit.

    Args:
        volume (VolumeCheck): The checks.
        name (str): Name of the prior.

    Returns:
        str: The result in one sentence.
    """
    check = volume.checks[name]
    errors = check.prediction_error
    text = f"{name} predicts held-out samples with {_range(errors)} of the error of wavelets{_by_slice(errors)}"
    if np.isfinite(check.residual).any():
        text += f", residual {_range(check.residual)} of the noise"
    _logger.info("Self-check of %d slices: %s.", len(volume.frames), text)
    unfit, inconsistent = ~check.prior_fits, ~check.data_consistent
    if unfit.any():
        _logger.warning(
            "The prior %s does not fit this scan (%s): it predicts held-out samples hardly better than wavelets do; "
            "try another one (--prior), or sample more.",
            name,
            _slices(volume, unfit),
        )
    if inconsistent.any():
        low = bool(check.residual[inconsistent][0] < 1)
        cause = (
            "the noise variance is too large (--noise-var)"
            if low
            else ("motion, wrong coil maps (--mps, --calib-width) or too small a noise variance (--noise-var)")
        )
        _logger.warning("The noise does not explain the residual (%s): %s.", _slices(volume, inconsistent), cause)
    return text


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _range(values: Array) -> str:
    values = values[np.isfinite(values)]
    if not len(values):
        return "an unknown part"
    low, high = f"{values.min():.2f}", f"{values.max():.2f}"
    return low if low == high else f"{low} to {high}"


def _by_slice(values: Array) -> str:
    """List the figures of several slices, in their order."""
    return f" (by slice: {' '.join(f'{value:.2f}' for value in values)})" if len(values) > 1 else ""


def _slices(volume: VolumeCheck, which: Array) -> str:
    """Describe some of the frames."""
    if len(volume.frames) == 1:
        return "the slice checked"
    slices = sorted({volume.frames[i][4] + 1 for i in np.flatnonzero(which)})
    shown = ", ".join(map(str, slices[:5]))
    return f"{which.sum()} of {len(volume.frames)} slices checked: {shown}{' ...' if len(slices) > 5 else ''}"
