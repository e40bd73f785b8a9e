"""Networks in and out of files: safetensors weights with a JSON description in the header."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from hggdp_plugin.hggdp_checkpoint import read_hggdp_checkpoint

#: Architecture name in a file -> module and class.
ARCHITECTURES = {
    "unet": ("hggdp_plugin.models.unet", "UNet"),
    "refinenet": ("hggdp_plugin.models.refinenet", "RefineNet"),
}
PRIORS = Path(__file__).with_name("priors")
DEFAULT_PRIOR = "brain-t2"


def build_model(architecture: str, **config: Any) -> torch.nn.Module:
    """Build an untrained network by its architecture's name (see :data:`ARCHITECTURES`)."""
    module, name = ARCHITECTURES[architecture]
    return getattr(import_module(module), name)(**config)


def bundled_priors() -> list[str]:
    """Names of the priors that come with the package."""
    return sorted(path.stem for path in PRIORS.glob("*.safetensors"))


def save_model(path: str | Path, model: torch.nn.Module, metadata: dict[str, Any]) -> None:
    """Write a network's weights and how it was made; an existing file is replaced only once the new one is whole.

    Args:
        path: File to write, ``.safetensors``.
        model (Module): A network as described in :mod:`hggdp_plugin.models`.
        metadata (dict): JSON-able facts: training data, steps, validation PSNR per sigma, ...

    Raises:
        ValueError: The network's class is not in :data:`ARCHITECTURES`.
        InputError: The file can't be written.
    """
    names = {class_name: name for name, (_, class_name) in ARCHITECTURES.items()}
    if type(model).__name__ not in names:
        raise ValueError(f"model: {type(model).__name__} is none of the architectures {', '.join(ARCHITECTURES)}")
    description = {"architecture": names[type(model).__name__], "config": model.config, **metadata}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    from hggdp_plugin.io.files import replacing  # to read a network, none of what io needs is needed

    content = save(tensors, metadata={"hggdp": json.dumps(description)})
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def load_model(name_or_path: str | Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Load a network in evaluation mode, on the CPU.

    Args:
        name_or_path: Name of a bundled prior (see :func:`bundled_priors`), a ``.safetensors`` file or a published
            checkpoint of HGGDP, ``.pth`` or ``.pt``, with the published noise levels.

    Returns:
        tuple: The network and its description (``architecture``, ``config``, and what its training recorded).

    Raises:
        ValueError: There is no such prior, or the file is not one; the message says which and what to do.
    """
    bundled = PRIORS / f"{name_or_path}.safetensors"
    path = bundled if bundled.exists() else Path(name_or_path)
    if not path.is_file():
        raise ValueError(f"prior {name_or_path}: neither a file nor one of: {', '.join(bundled_priors())}")
    if path.suffix in (".pth", ".pt"):
        published = read_hggdp_checkpoint(path)
        return published, {"architecture": "refinenet", "config": published.config}
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})["hggdp"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        model = build_model(description["architecture"], **description["config"])
        model.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise ValueError(f"prior {path}: not a network saved by this package ({reason})") from e
    return model.eval(), description
