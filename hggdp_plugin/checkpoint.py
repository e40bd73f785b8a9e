"""Networks in and out of files: safetensors weights with a JSON description in the header."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from hggdp_plugin._typing import PathLike
from hggdp_plugin.hggdp_checkpoint import read_hggdp_checkpoint
from hggdp_plugin.io.files import replacing
from hggdp_plugin.models.network import ScoreNetwork

#: Architecture name in a file -> module and class.
ARCHITECTURES = {
    "unet": ("hggdp_plugin.models.unet", "UNet"),
    "refinenet": ("hggdp_plugin.models.refinenet", "RefineNet"),
}
#: Arguments of architectures in files of earlier versions -> their present names.
RENAMED_ARGUMENTS = {"phase_pixels": "phase_resolution"}
PRIORS = Path(__file__).with_name("priors")
DEFAULT_PRIOR = "brain-t2"


def build_model(architecture: str, **config: Any) -> ScoreNetwork:
    """Build an untrained network.

    Args:
        architecture (str): Its name, see :data:`ARCHITECTURES`.
        **config: Arguments of its class.

    Returns:
        ScoreNetwork: The network.
    """
    module, name = ARCHITECTURES[architecture]
    arguments = {RENAMED_ARGUMENTS.get(name, name): value for name, value in config.items()}
    return getattr(import_module(module), name)(**arguments)


def bundled_priors() -> list[str]:
    """Return the names of the priors that come with the package."""
    return sorted(path.stem for path in PRIORS.glob("*.safetensors"))


def prior_file(name_or_path: PathLike) -> Path:
    """Return the file of a prior.

    Args:
        name_or_path (str or Path): Name of a bundled prior, or a file.
    """
    bundled = PRIORS / f"{name_or_path}.safetensors"
    return bundled if bundled.exists() else Path(name_or_path)


def save_model(path: PathLike, model: ScoreNetwork, metadata: dict[str, Any]) -> None:
    """Write a network's weights and description; an existing file is replaced only by a complete one.

    Args:
        path (str or Path): File to write, ``.safetensors``.
        model (ScoreNetwork): The network.
        metadata (dict): What JSON can hold: training data, steps, validation PSNR per sigma, ...

    Raises:
        ValueError: The network's class is not in :data:`ARCHITECTURES`.
        InputError: The file cannot be written.
    """
    names = {class_name: name for name, (_, class_name) in ARCHITECTURES.items()}
    if type(model).__name__ not in names:
        raise ValueError(f"model: {type(model).__name__} is none of the architectures {', '.join(ARCHITECTURES)}")
    description = {"architecture": names[type(model).__name__], "config": model.config, **metadata}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    content = save(tensors, metadata={"hggdp": json.dumps(description)})
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def load_model(name_or_path: PathLike) -> tuple[ScoreNetwork, dict[str, Any]]:
    """Load a network, on the CPU.

    Args:
        name_or_path (str or Path): Name of a bundled prior (see :func:`bundled_priors`), a ``.safetensors`` file, or a
            checkpoint of the HGGDP authors' code, ``.pth`` or ``.pt``, with the noise levels of the paper.

    Returns:
        tuple: The network and its description (``architecture``, ``config``, and the records of its training).

    Raises:
        ValueError: There is no such prior, or the file does not contain one; the message says which and what to do.
    """
    path = prior_file(name_or_path)
    if not path.is_file():
        raise ValueError(f"prior {name_or_path}: neither a file nor one of: {', '.join(bundled_priors())}")
    if path.suffix in (".pth", ".pt"):
        network = read_hggdp_checkpoint(path)
        return network, {"architecture": "refinenet", "config": network.config}
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})["hggdp"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        model = build_model(description["architecture"], **description["config"])
        model.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"prior {path}: not a network saved by this package ({reason})") from error
    return model.eval(), description
