"""What a training run needs to know, as one object: from Python, from the command line, and in the run's folder."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any

from hggdp_plugin._typing import PathLike

ARCHITECTURES = ("unet", "refinenet")
OPTIMIZERS = ("muon", "adamw")

#: Fields that may differ between the starts of a run; the others decide its course.
MAY_CHANGE = ("output", "validation", "validate_every", "max_time", "devices", "compile", "steps", "init_weight")


@dataclass(frozen=True)
class Augmentation:
    """What a prior should be indifferent to; each can be switched off.

    The attributes from ``monotone_remap`` on are off by default; :meth:`broad` switches them on.

    Attributes:
        flip (bool): Flips and quarter turns, all eight equally likely.
        phase (bool): A global phase, uniform.
        smooth_phase (float): Largest amplitude (radian) of a smooth spatial phase, as coils and field errors give; on
            half of the images.
        intensity (float): Largest factor of a random intensity scale, log-uniform in [1/intensity, intensity].
        shading (float): Largest relative amplitude of a smooth intensity variation; on half of the images.
        zoom (float): Largest factor of a random change of pixel size, log-uniform, with a sub-pixel shift; on half of
            the images.
        magnitude_phase (float): Largest amplitude (radian) of the smooth phase that magnitude images get, log-uniform.
        monotone_remap (float): Share of the images whose magnitude goes through a random increasing curve.
        nonmonotone_remap (float): Share of the images whose magnitude goes through a random curve that is not monotone.
        bias_field (float): Largest amplitude of the logarithm of a smooth intensity variation; on half of the images.
        resolution (float): Smallest fraction of k-space kept along each axis; on half of the images. The image stays on
            its grid, as after zero filling, or has larger pixels.
        tissue_phase (float): Largest amplitude (radian) of a phase that depends on the magnitude, as susceptibility and
            fat give; on half of the images.
    """

    flip: bool = True
    phase: bool = True
    smooth_phase: float = 2.0
    intensity: float = 1.25
    shading: float = 0.3
    zoom: float = 1.25
    magnitude_phase: float = 6.0
    monotone_remap: float = 0.0
    nonmonotone_remap: float = 0.0
    bias_field: float = 0.0
    resolution: float = 1.0
    tissue_phase: float = 0.0

    @classmethod
    def broad(cls) -> "Augmentation":
        """Make the augmentation of a prior for many contrasts, resolutions and coils."""
        return cls(monotone_remap=0.25, nonmonotone_remap=0.25, bias_field=0.7, resolution=0.5, tissue_phase=0.5)

    def without(self, names: Iterable[str]) -> "Augmentation":
        """Switch some attributes off."""
        return replace(self, **{name: OFF[name] for name in names})


#: The value of each attribute of :class:`Augmentation` that switches it off.
OFF: dict[str, Any] = {
    "flip": False,
    "phase": False,
    "smooth_phase": 0.0,
    "intensity": 1.0,
    "shading": 0.0,
    "zoom": 1.0,
    "magnitude_phase": 0.0,
    "monotone_remap": 0.0,
    "nonmonotone_remap": 0.0,
    "bias_field": 0.0,
    "resolution": 1.0,
    "tissue_phase": 0.0,
}


class ConfigError(ValueError):
    """A setting of a training run cannot be used.

    Args:
        name (str): Field of :class:`TrainConfig`.
        value (object): Its value.
        problem (str): What is wrong.
        remedy (str): What to do about it.
    """

    def __init__(self, name: str, value: object, problem: str, remedy: str) -> None:
        self.name, self.value, self.problem, self.remedy = name, value, problem, remedy
        super().__init__(f"{name}={value!r}: {problem}; {remedy}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run.

    Sequences are stored as tuples, and paths as :class:`~pathlib.Path`.

    Attributes:
        data (sequence of paths): Files or folders of images (see :func:`hggdp_plugin.training.images.load_images`).
        output (path): Prior to write, ``.safetensors``. The run keeps its state in the folder ``<output>.run``.
        validation (sequence of paths): Images to measure on, read as ``data``.
        domain_weights (dict): How often domains are drawn, relative to the others; 0 leaves a domain out.
        synthetic (int): Number of dead-leaves images, and of images of random regions, to add as domains.
        init (str or None): Prior to start from, a bundled name or a file, with its architecture, views and widths.
        init_weight (float): Weight of ``init`` in an average, at the end, of its weights and the trained ones.
        architecture (str): ``"unet"``, or ``"refinenet"``, the network of Quan et al.
        views (int): Noisy views of an image that the network sees.
        widths (sequence of ints or None): Channels per resolution level; one number for ``"refinenet"``. None: the
            network's default.
        blocks (int or None): Residual blocks per level; None: the network's default, or as in ``init``.
        phase_resolution (int or None): Resolution (pixels) of the phase that is removed before the network; 0: the
            phase stays; None: 16, or as in ``init``.
        steps (int): Training steps.
        batch_size (int): Crops per step and device.
        crop (int): Crop height and width (pixels).
        rollouts (int or None): Steps of simulated reconstructions per training step and device; None: 1 if the network
            can, else 0.
        rollout_batch (int): Images of a rollout; 1: a whole one, more: crops.
        rollout_crop (int or None): Height and width of these crops; None: ``crop``.
        rollout_levels (sequence of int): Numbers of levels of the rollouts' schedules, all equally likely.
        crops_first (float or None): Fraction of the steps before rollouts begin; None: 0 with ``init``, else 0.75.
        augmentation (Augmentation): Random variation of the images.
        optimizer (str): ``"muon"`` or ``"adamw"``.
        learning_rate (float): Its peak.
        warmup (int): Steps in which the learning rate rises to it.
        seed (int): Seed of all randomness.
        float32 (bool): Full precision instead of bfloat16 autocast, which only processors with the instructions use.
        compile (bool): Compile the network: minutes at the start, for a GPU.
        devices (int or str): Number of GPUs or CPU processes, or ``"auto"``: all GPUs.
        max_time (float or None): Seconds after which this start stops and writes the prior as it is.
        validate_every (int): Steps between validations.

    Raises:
        ConfigError: A value is out of range or contradicts another.

    References:
        Wortsman, M., et al. (2022). Robust fine-tuning of zero-shot models. CVPR. (``init_weight``)
    """

    data: Sequence[PathLike]
    output: PathLike
    validation: Sequence[PathLike] = ()
    domain_weights: Mapping[str, float] = field(default_factory=dict)
    synthetic: int = 0
    init: str | None = None
    init_weight: float = 0.0
    architecture: str = "unet"
    views: int = 1
    widths: Sequence[int] | None = None
    blocks: int | None = None
    phase_resolution: int | None = None
    steps: int = 10_000
    batch_size: int = 16
    crop: int = 64
    rollouts: int | None = None
    rollout_batch: int = 1
    rollout_crop: int | None = None
    rollout_levels: Sequence[int] = (25,)
    crops_first: float | None = None
    augmentation: Augmentation = Augmentation()
    optimizer: str = "muon"
    learning_rate: float = 2e-3
    warmup: int = 200
    seed: int = 0
    float32: bool = False
    compile: bool = False
    devices: int | str = "auto"
    max_time: float | None = None
    validate_every: int = 1000

    def __post_init__(self) -> None:
        """Normalize paths and sequences, and check the values."""
        normalized = {
            "data": tuple(map(Path, self.data)),
            "output": Path(self.output),
            "validation": tuple(map(Path, self.validation)),
            "widths": None if self.widths is None else tuple(self.widths),
            "rollout_levels": tuple(self.rollout_levels),
            "domain_weights": dict(self.domain_weights),
        }
        for name, value in normalized.items():
            object.__setattr__(self, name, value)
        self._check_ranges()
        self._check_network()
        if Path(self.output).suffix != ".safetensors" or not Path(self.output).resolve().parent.is_dir():
            self._refuse(
                "output", "not a .safetensors file in a folder that exists", "change the name or make the folder"
            )

    def _check_ranges(self) -> None:
        for name in ("views", "steps", "batch_size", "crop", "rollout_batch", "validate_every"):
            if getattr(self, name) < 1:
                self._refuse(name, "too small", "give a whole number of at least 1")
        for name, least in {
            "blocks": 1,
            "rollout_crop": 1,
            "phase_resolution": 0,
            "rollouts": 0,
            "synthetic": 0,
            "warmup": 0,
        }.items():
            if (value := getattr(self, name)) is not None and value < least:
                self._refuse(name, "too small", f"give a whole number of at least {least}")
        if not self.rollout_levels or min(self.rollout_levels) < 2:
            self._refuse("rollout_levels", "too few", "give whole numbers of at least 2")
        for name in ("init_weight", "crops_first"):
            if (value := getattr(self, name)) is not None and not 0 <= value <= 1:
                self._refuse(name, "out of range", "give a number from 0 to 1")
        for name in ("learning_rate", "max_time"):
            if (value := getattr(self, name)) is not None and not (isfinite(value) and value >= 0):
                self._refuse(name, "out of range", "give a number of at least 0")
        if not all(isfinite(weight) and weight >= 0 for weight in self.domain_weights.values()):
            self._refuse("domain_weights", "a weight is negative", "give numbers of at least 0")
        if self.devices != "auto" and (not isinstance(self.devices, int) or self.devices < 1):
            self._refuse("devices", "not a number of devices", "give a whole number of at least 1, or 'auto'")

    def _check_network(self) -> None:
        for name, choices in (("architecture", ARCHITECTURES), ("optimizer", OPTIMIZERS)):
            if getattr(self, name) not in choices:
                self._refuse(name, "unknown", f"choose from {', '.join(choices)}")
        if self.init_weight and not self.init:
            self._refuse("init_weight", "there is nothing to average with", "give init, or leave it out")
        if self.widths is not None and (not self.widths or min(self.widths) < 1):
            self._refuse("widths", "a width is too small", "give whole numbers of at least 1")
        if self.architecture == "refinenet" and self.widths and len(self.widths) > 1:
            self._refuse("widths", "refinenet takes one number", "give one number")

    def _refuse(self, name: str, problem: str, remedy: str) -> None:
        raise ConfigError(name, getattr(self, name), problem, remedy)

    @property
    def run_folder(self) -> Path:
        """The folder in which the run keeps its state."""
        output = Path(self.output)
        return output.with_name(f"{output.name}.run")

    def to_json(self) -> str:
        """Return the configuration as JSON, for :meth:`from_json`."""
        return json.dumps(asdict(self), indent=1, default=str) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """Make a configuration of :meth:`to_json`'s text; fields that it lacks have their defaults.

        Raises:
            ConfigError: A value is unusable, or there is a field that this version does not know.
        """
        values = json.loads(text)
        for name in values.keys() - {f.name for f in fields(cls)}:
            raise ConfigError(name, values[name], "this version does not know it", "use the version that wrote it")
        return cls(**{**values, "augmentation": Augmentation(**values.get("augmentation", {}))})

    def course(self) -> dict[str, Any]:
        """Return what decides the course of the run, as JSON knows it; data files by their names."""
        values = {name: value for name, value in json.loads(self.to_json()).items() if name not in MAY_CHANGE}
        return {**values, "data": [Path(path).name for path in self.data]}
