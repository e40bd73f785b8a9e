"""Every Python snippet and every `hggdp` command of README and docs works, and its image resembles the truth."""

import glob
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import h5py
import matplotlib.pyplot as plt
import numpy as np
import pydicom
import pytest
import sigpy as sp
import sigpy.mri as mr
import torch

from hggdp_plugin import io
from hggdp_plugin.apps.__main__ import main
from hggdp_plugin.io.cfl import write_cfl
from hggdp_plugin.metrics import score
from hggdp_plugin.models.refinenet import RefineNet
from hggdp_plugin.random import complex_normal
from hggdp_plugin.simulation import coil_maps, head_phantom
from hggdp_plugin.simulation.masks import poisson_disc, radial_trajectory

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/guides").glob("*.md"))]
#: Commands of a shell snippet that are not executed: they install, are what continuous integration itself does, or
#: begin with a program of the ISMRMRD tools, which are not installed (a pipe has a test in apps/test_recon_files.py).
NOT_EXECUTED = (
    r"(python3 -m venv|\S*pip install|\S*pytest|\S*pre-commit|\S*python -m (sphinx|build)|python benchmarks/"
    r"|ismrmrd_hdf5_to_stream)"
)
#: What would take too long in a test.
SHORTENED = {
    r"steps=\d+": "steps=2, widths=(8, 8), batch_size=2",
    r"(hggdp train .*--init.*)": r"\1 --steps 1 --batch-size 1 --crop 16 --reconstructions 0",
    r"(hggdp train (?!.*--init).*)": r"\1 --steps 2 --batch-size 2 --crop 32 --widths 8 8 --reconstructions 0",
    r"(hggdp recon .*--schedule hggdp.*)": r"\1 -N 1 -K 2",
    r"(hggdp recon .*--schedule posterior.*)": r"\1 -N 12 -S 2",
}
#: Priors that these tests made themselves, in no time: their images need not be good.
UNTRAINED = r"--prior (mine|adapted|checkpoint)"
#: Images are right if their PSNR is that much better than the zero-filled image's [dB].
GAIN = 4.0


def snippets(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def shortened(snippet: str) -> str:
    for long, short in SHORTENED.items():
        snippet = re.sub(long, short, snippet)
    return snippet


def with_snippets(language: str) -> list[Any]:
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES if snippets(page, language)]


@pytest.fixture(scope="module")
def scan() -> dict[str, Any]:
    """A small scan under the names that the snippets use."""
    shape = (112, 112)
    image = head_phantom(shape)[0]
    mps = coil_maps(8, shape)
    mask = poisson_disc(shape, accel=4, calib=20, seed=0).astype(np.float32)
    noise_var = 2e-4
    rng = np.random.default_rng(0)

    def noisy(y: np.ndarray) -> np.ndarray:
        return (y + (noise_var / 2) ** 0.5 * complex_normal(rng, y.shape)).astype(np.complex64)

    full = noisy(sp.fft(mps * image, axes=(-2, -1)))
    coord = (112 * radial_trajectory(40, 224)).astype(np.float32)
    names = {"image": image, "mps": mps, "mask": mask, "noise_var": noise_var, "coord": coord, "full": full}
    return {**names, "ksp": mask * full, "radial_ksp": noisy(sp.nufft(mps * image, coord))}


@pytest.fixture
def folder(scan: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the commands use."""
    monkeypatch.chdir(tmp_path)
    np.save("kspace.npy", scan["full"])
    np.save("sens.npy", scan["mps"])
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    assert main(["simulate", "kspace.npy", "-o", "raw.h5", "--mask", "random", "--accel", "2.5", "--calib", "20"]) == 0
    Path("scans").mkdir()
    for name in ("first.h5", "second.h5"):
        shutil.copy("raw.h5", Path("scans") / name)
    coord = np.concatenate([scan["coord"][..., ::-1], 0 * scan["coord"][..., :1]], axis=-1)
    bart = {"ksp": scan["ksp"], "sens": scan["mps"], "radial_ksp": scan["radial_ksp"][..., None], "traj": coord}
    for name, array in bart.items():
        write_cfl(Path(f"{name}.cfl"), array[:, None] if name in ("ksp", "sens") else array)
    for name in ("my_scans", "my_validation"):
        Path(name).mkdir()
        np.save(Path(name) / "images.npy", head_phantom((64, 64), num_slices=2, seed=len(name)))
    torch.save(RefineNet(views=3, width=4).state_dict(), "checkpoint_100000.pth")
    return tmp_path


def zero_filled(scan: dict[str, Any]) -> float:
    return score(mr.linop.Sense(scan["mps"]).H(scan["ksp"]), scan["image"]).psnr


@pytest.mark.parametrize("page", with_snippets("python"))
def test_python(page: Path, scan: dict[str, Any], folder: Path) -> None:
    names = dict(scan)
    for snippet in snippets(page, "python"):
        names.pop("img", None)
        exec(compile(shortened(snippet), page.name, "exec"), names)
        if "img" in names:
            assert score(names["img"], scan["image"]).psnr > zero_filled(scan) + GAIN, snippet


def commands(page: Path) -> list[list[str]]:
    """The arguments of each `hggdp` command of a page."""
    lines = "\n".join(snippets(page, "sh")).replace("\\\n", " ")
    found = []
    for line in lines.splitlines():
        words = shlex.split(shortened(line.replace(" #", "\n#").split("\n")[0]), comments=True)
        words = shlex.split(re.sub(r"^\S*python -m hggdp_plugin\.apps\.(\w+)", r"hggdp \1", shlex.join(words)))
        if not words or re.match(NOT_EXECUTED, shlex.join(words)):
            continue
        assert words[0] == "hggdp", f"{page.name}: {line}: neither executed nor known"
        if not torch.cuda.is_available() and words[-1] == "-g":
            words.remove("-g")
        words += ["-q", "-N", "8"] * (words[1] == "recon" and "-N" not in words)
        found.append([name for word in words[1:] for name in sorted(glob.glob(word)) or [word]])
    return found


IMAGES = (".h5", ".gz", ".npy", ".cfl", ".png", ".dcm")


def truth(raw: str, scan: dict[str, Any]) -> np.ndarray:
    if not raw.endswith(".h5"):
        return scan["image"]
    with h5py.File(raw) as file:
        return file["reference/image"][0]


def read_image(path: Path) -> np.ndarray:
    if path.suffix == ".dcm":
        return pydicom.dcmread(path).pixel_array
    return plt.imread(path)[..., 0] if path.suffix == ".png" else io.read_images(path).squeeze()


@pytest.mark.parametrize("page", with_snippets("sh"))
def test_commands(page: Path, scan: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands(page):
        line = f"hggdp {shlex.join(words)}"
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        code = main(words)
        assert code == 0, f"{line}: {capsys.readouterr().err}"
        new = [path for path in folder.rglob("*") if path.stat().st_mtime_ns != before.get(path) and path.is_file()]
        new = [path for path in new if "thumbnails" not in path.parts]
        assert new or words[0] == "evaluate", f"{line}: wrote nothing"
        if words[0] == "recon" and not re.search(UNTRAINED, line):
            image = read_image(next(path for path in new if path.suffix in IMAGES))
            psnr = score(np.abs(image), np.abs(truth(words[1], scan))).psnr
            assert psnr > zero_filled(scan) + GAIN, f"{line}: {psnr:.1f} dB"
