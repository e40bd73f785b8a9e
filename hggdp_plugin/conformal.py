"""Conformal factors: how much larger the errors of reconstructions are than an error map says, learned offline.

A prior has a file of them beside it, ``NAME.calibration.json``, which ``benchmarks/calibration.py`` writes: one factor
for each kind of sampling, from slices that the prior was not trained on.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hggdp_plugin._typing import Array, PathLike
from hggdp_plugin.hold_out import WHOLE
from hggdp_plugin.io.files import replacing
from hggdp_plugin.schedule import FewStep, NoiseSchedule

_logger = logging.getLogger(__name__)

#: Nominal coverages that quantiles are stored for.
COVERAGES = (0.5, 0.8, 0.95)
#: Part of the slices whose PSNR is above the lower bound.
PSNR_CONFIDENCE = 0.9


@dataclass(frozen=True)
class ConformalFactor:
    """How the errors of a kind of sampling compare with the map that the bootstrap gives.

    Attributes:
        factor: Root mean square error over that of the map; a map times this is the standard error.
        quantiles: Nominal coverage in percent -> the error of this part of the pixels is below that multiple of the
            standard error. Complex normal errors would have 0.83, 1.27 and 1.73.
        slice_factor: The error of a slice over what its map times ``factor`` says, root mean squares, is below this in
            :data:`PSNR_CONFIDENCE` of the slices.
        n_slices: Number of slices that it was learned on.
        domains: What they show.
    """

    factor: float
    quantiles: dict[str, float]
    slice_factor: float
    n_slices: int
    domains: tuple[str, ...]


@dataclass(frozen=True)
class Calibration:
    """The conformal factors of a prior.

    Attributes:
        prior: Fingerprint of the prior's file, see :func:`fingerprint`.
        method: What they hold for, see :func:`describe_method`.
        families: The factors by kind of sampling, see :func:`sampling_family`.
    """

    prior: str
    method: str
    families: dict[str, ConformalFactor]

    def factor(self, family: str, method: str) -> ConformalFactor | None:
        """Return the factor of a kind of sampling.

        Args:
            family (str): The kind of sampling.
            method (str): How the map was made.

        Returns:
            ConformalFactor or None: None if it was not learned, or for another method.
        """
        return self.families.get(family) if method == self.method else None


def sampling_family(mask: Array | None, n_coils: int) -> str:
    """Return the kind of sampling that shares one factor.

    Args:
        mask (array or None): Samples that were measured, (..., H, W), or anything that is not 0 there; None:
            not Cartesian.
        n_coils (int): Number of coils.

    Returns:
        str: ``lines``, ``points`` or ``non-Cartesian``, of ``one coil`` or ``coils``.
    """
    coils = "coils" if n_coils > 1 else "one coil"
    if mask is None:
        return f"non-Cartesian, {coils}"
    measured = np.asarray(mask) != 0
    lines = all(_has_lines(one) for one in measured.reshape(-1, *measured.shape[-2:]) if one.any())
    return f"{'lines' if lines else 'points'}, {coils}"


def _has_lines(measured: np.ndarray) -> bool:
    measured = measured[np.ix_(measured.any(axis=1), measured.any(axis=0))]  # readouts may be partial
    return any(bool((~measured.any(axis) | (measured.mean(axis) >= WHOLE)).all()) for axis in (0, 1))


def describe_method(schedule: NoiseSchedule, repeated: NoiseSchedule) -> str:
    """Describe how a map is made, in one line: factors hold for this only, and for any number of copies.

    Reconstructions with few steps, but at least as many as the repeated ones, differ by less than their factors do
    between slices: they count as one method.

    Args:
        schedule (NoiseSchedule): Schedule of the reconstruction.
        repeated (NoiseSchedule): Schedule of the repeated reconstructions.

    Returns:
        str: The description.
    """
    alike = isinstance(schedule.rule, FewStep) and isinstance(repeated.rule, FewStep) and len(schedule) >= len(repeated)
    return f"{'few steps' if alike else _describe(schedule)}, repeated by {_describe(repeated)}"


def _describe(schedule: NoiseSchedule) -> str:
    first, last = schedule.sigmas[0], schedule.sigmas[-1]
    return f"{schedule.rule!r}, {len(schedule)} steps, sigma {first:.3g} to {last:.3g}"


def conformal_factor(ratios: Sequence[Array], slice_ratios: Sequence[float], domains: Sequence[str]) -> ConformalFactor:
    """Learn a factor from slices whose errors are known.

    Args:
        ratios (sequence of arrays): Of each slice the magnitude of the complex error over the map, where the object is.
        slice_ratios (sequence of float): The ratio of their root mean squares over these pixels.
        domains (sequence of str): What each slice shows; every domain gets the same weight, whatever its number of
            slices.

    Returns:
        ConformalFactor: The factor.
    """
    names = sorted(set(domains))
    share = np.array([1 / (len(names) * list(domains).count(name)) for name in domains])
    factor = float(np.exp(share @ np.log(slice_ratios)))
    weights = np.concatenate([np.full(r.size, w / r.size) for r, w in zip(ratios, share, strict=True)])
    values = np.concatenate([r.ravel() for r in ratios]) / factor
    return ConformalFactor(
        factor=factor,
        quantiles={f"{100 * p:g}": weighted_quantile(values, weights, p) for p in COVERAGES},
        slice_factor=weighted_quantile(np.array(slice_ratios) / factor, share, PSNR_CONFIDENCE),
        n_slices=len(ratios),
        domains=tuple(names),
    )


def weighted_quantile(values: Array, weights: Array, probability: float) -> float:
    """Return what values are below with this probability, if they have these weights."""
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulative, probability * cumulative[-1])])


def fingerprint(path: PathLike) -> str:
    """Return the first digits of the SHA-256 of the weights in a file, whatever its description says."""
    content = Path(path).read_bytes()
    is_safetensors = Path(path).suffix == ".safetensors"
    header = 8 + int.from_bytes(content[:8], "little") if is_safetensors else 0
    return hashlib.sha256(content[header:]).hexdigest()[:16]


def calibration_path(prior: PathLike) -> Path:
    """Return where the calibration of a prior's file is."""
    return Path(prior).with_suffix(".calibration.json")


def write_calibration(prior: PathLike, calibration: Calibration) -> None:
    """Write the calibration beside the prior's file."""
    with replacing(calibration_path(prior)) as temporary:
        temporary.write_text(json.dumps(asdict(calibration), indent=1) + "\n")


def read_calibration(prior: PathLike) -> Calibration | None:
    """Read the calibration beside a prior's file.

    Args:
        prior (str or Path): The prior's file.

    Returns:
        Calibration or None: None if there is none, or if it is that of another file, which is logged.
    """
    path = calibration_path(prior)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        families = {
            name: ConformalFactor(**{**f, "domains": tuple(f["domains"])}) for name, f in content["families"].items()
        }
        calibration = Calibration(content["prior"], content["method"], families)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        _logger.warning("%s: not a calibration (%s); error maps are not calibrated.", path, error)
        return None
    if calibration.prior != fingerprint(prior):
        _logger.warning("%s: made for other weights; error maps are not calibrated.", path)
        return None
    return calibration
