"""Checkpoints of the authors' code: what is read, what is refused, and that no code in a file is run."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from hggdp_plugin.checkpoint import load_model
from hggdp_plugin.hggdp_checkpoint import read_hggdp_checkpoint
from hggdp_plugin.models.refinenet import HGGDP_SIGMAS, RefineNet


@pytest.fixture
def network() -> RefineNet:
    torch.manual_seed(0)
    return RefineNet(views=2, width=4).eval()


def authors_form(network: RefineNet) -> list[dict[str, Any]]:
    optimizer = torch.optim.Adam(network.parameters())
    network.score(torch.randn(1, 4, 8, 8), torch.tensor([3])).square().mean().backward()
    optimizer.step()
    return [torch.nn.DataParallel(network).state_dict(), optimizer.state_dict()]


def assert_same(a: RefineNet, b: RefineNet) -> None:
    assert a.config == b.config
    x, sigma = torch.randn(1, 4, 8, 8), torch.tensor([0.1])
    with torch.inference_mode():
        torch.testing.assert_close(a(x, sigma), b(x, sigma), rtol=0, atol=0)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_the_form_of_the_authors_code(network: RefineNet, tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "checkpoint_100000.pth"
    torch.save(authors_form(network), path, _use_new_zipfile_serialization=zipped)
    read = read_hggdp_checkpoint(path)
    assert read.sigmas == HGGDP_SIGMAS
    assert not read.training
    assert all(p.requires_grad for p in read.parameters())
    assert_same(read, network)


def test_loads_by_its_suffix(network: RefineNet, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_100000.pth"
    torch.save(authors_form(network), path)
    read, description = load_model(path)
    assert description == {"architecture": "refinenet", "config": network.config}
    assert isinstance(read, RefineNet)
    assert_same(read, network)


def test_bare_state_dict_and_other_sigmas(tmp_path: Path) -> None:
    network = RefineNet(views=2, width=6, sigmas=[2.0, 0.2, 0.02]).eval()
    torch.save(network.state_dict(), tmp_path / "bare.pt")
    assert_same(read_hggdp_checkpoint(tmp_path / "bare.pt", [2.0, 0.2, 0.02]), network)


class Hostile:
    """Creates a file when it is unpickled by a reader that trusts it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("form", ["pickle", "torch", "authors"])
def test_hostile_pickle_runs_nothing(network: RefineNet, tmp_path: Path, form: str) -> None:
    path, target = tmp_path / "hostile.pth", tmp_path / "touched"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Hostile(target), protocol=2))
    elif form == "torch":
        torch.save(Hostile(target), path)
    else:
        torch.save([network.state_dict(), Hostile(target)], path)
    with pytest.raises(ValueError, match=r"hostile\.pth: not a PyTorch file, or one that contains more than tensors"):
        read_hggdp_checkpoint(path)
    assert not target.exists()
    # The file is a threat indeed: a trusting reader does run it.
    if form == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert target.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a PyTorch file"),
        (b"not a checkpoint", "not a PyTorch file"),
        (b"R", "not a PyTorch file"),
        (b"PK\x03\x04 a broken archive", "not a PyTorch file"),
        ([], "no state dict"),
        (3, "no state dict"),
        ({"epoch": 3}, "no state dict"),
        ([{"weight": torch.zeros(3)}, {}], "no weights of the HGGDP network"),
        ({"begin_conv.weight": torch.zeros(3), "normalizer.embed.weight": torch.zeros(3)}, "no weights"),
    ],
)
def test_wrong_file(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "wrong.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=rf"wrong\.pth: {message}") as error:
        read_hggdp_checkpoint(path)
    assert "\n" not in str(error.value)


def test_says_what_is_missing(network: RefineNet, tmp_path: Path) -> None:
    path = tmp_path / "part.pth"
    state = network.state_dict()

    def refused(state: dict[str, torch.Tensor], match: str, **kwargs: Any) -> None:
        torch.save(state, path)
        with pytest.raises(ValueError, match=rf"part\.pth: {match}"):
            read_hggdp_checkpoint(path, **kwargs)

    refused({k: v for k, v in state.items() if "crp" not in k}, r"lacks 16 of 173 tensors, such as refine1\.crp\.")
    refused(state | {"other.weight": torch.zeros(1)}, r"has unknown 1 of 173 tensors, such as other\.weight")
    refused(state | {"end_conv.bias": torch.zeros(1)}, r"has other shapes of 1 of 173 tensors, such as end_conv\.bias")
    refused(state, "10 noise levels, but 2 sigmas; hggdp convert --sigmas", sigmas=[1.0, 0.1])
