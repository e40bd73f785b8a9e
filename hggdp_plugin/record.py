"""A record of one reconstruction for machines: what was read, estimated and used, as JSON."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np

from hggdp_plugin.io.files import replacing
from hggdp_plugin.io.raw import RawData
from hggdp_plugin.prior import ScorePrior

#: Packages whose versions are recorded.
PACKAGES = ("hggdp_plugin", "sigpy", "torch", "numpy", "ismrmrd", "cupy")


@dataclass
class Record:
    """What a record says.

    Attributes:
        input (dict): What was read, see :func:`describe`.
        options (mapping): What was asked for: prior, schedule, seed ...
        output (mapping): File and shape of the image.
        seconds (mapping): Time of each part of the run by its name.
        messages (sequence): Log of the run as pairs of level and text.
        estimates (list of dict): What was estimated of each frame, see
            :func:`hggdp_plugin.volume.batch.frame_estimates`.
        uncertainty (mapping): Where the standard error is, how it was made, and what it says of each frame, see
            :class:`hggdp_plugin.volume.uncertainty.VolumeUncertainty`.
        samples (mapping): Where samples are, and their spread, see :class:`hggdp_plugin.volume.samples.Spread`.
        self_check (list of dict): Per checked frame what the self-check found, see :mod:`hggdp_plugin.selfcheck`.
    """

    input: dict[str, object]
    options: Mapping[str, object] = field(default_factory=dict)
    output: Mapping[str, object] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    messages: Sequence[tuple[str, str]] = ()
    estimates: list[dict[str, object]] = field(default_factory=list)
    self_check: list[dict[str, object]] = field(default_factory=list)
    uncertainty: Mapping[str, object] = field(default_factory=dict)
    samples: Mapping[str, object] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the record as JSON; the file appears only when it is complete."""
        content = asdict(self)
        messages = content.pop("messages")
        content["warnings"] = [text for level, text in messages if level in ("WARNING", "ERROR")]
        content["log"] = [text for _, text in messages]
        content["versions"] = versions()
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def describe(raw: RawData) -> dict[str, object]:
    """Describe a measurement.

    Args:
        raw (RawData): The measurement.

    Returns:
        dict: What was read, in values that JSON can hold.
    """
    return {
        "source": raw.source,
        "trajectory": raw.trajectory,
        "slice_axis": raw.slice_axis,
        "frames": list(raw.frame_shape),
        "coils": raw.n_coils,
        "grid": list(raw.grid),
        "image_shape": list(raw.image_shape),
        "fov_mm": list(raw.fov),
        "prewhitened": raw.whitened,
        "sampled_fraction": None if raw.mask is None else float(raw.mask.mean()),
        "calibration_region": list(raw.calib_shape),
    }


def prior_digest(prior: ScorePrior) -> str:
    """Return the SHA-256 digest of the weights of a prior, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(prior.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.float().cpu().numpy()).tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the result may depend on."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
