"""The public names, the cost of importing them, and the rules of docs/architecture.md."""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hggdp_plugin

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hggdp_plugin"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def test_public_names_are_there():
    for name in hggdp_plugin.__all__:
        assert getattr(hggdp_plugin, name).__name__ == name


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = hggdp_plugin.no_such_name


def test_the_package_loads_without_torch():
    code = "import sys, hggdp_plugin; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def imports(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports, anywhere in it, and for a package those of its stub."""
    stub = path.with_suffix(".pyi")
    trees = [ast.parse(file.read_text()) for file in (path, stub) if file.exists()]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            folder = ".".join(path.relative_to(ROOT).parts[: -node.level]) + "." if node.level else ""
            base = (folder + (node.module or "")).rstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}"
                if full in MODULES or base in MODULES:
                    yield full if full in MODULES else base


def test_no_circle():
    graph = {name: set(imports(path)) - {name} for name, path in MODULES.items()}
    assert graph["hggdp_plugin.app"] >= {"hggdp_plugin.problem", "hggdp_plugin.prior"}
    graphlib.TopologicalSorter(graph).prepare()


def test_imports_point_down():
    """In the picture of docs/architecture.md, a module imports only what stands below it."""
    picture = (ROOT / "docs/architecture.md").read_text().split("```")[1]
    floors = re.findall(r"^  (\w+)", picture, re.MULTILINE)
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert set(floors) == rooms - {"__init__", "__pycache__"}, (
        "docs/architecture.md does not show the modules there are"
    )
    named = set(re.findall(r"\w+", picture))
    missing = {path.stem for path in MODULES.values() if not path.stem.startswith("_")} - named
    assert not missing, f"the picture lacks {missing}"
    assert len(floors) == len(set(floors)), "the picture shows a module twice"
    rows = re.findall(r"^    (\w+)(?=   |  \w+$|$)", picture, re.MULTILINE)
    assert not (gone := set(rows) - {path.stem for path in MODULES.values()} - rooms), f"the picture shows {gone}"
    for name, path in MODULES.items():
        for target in imports(path):
            room, other = (module.split(".")[1] if "." in module else None for module in (name, target))
            if room and other and room != other:
                assert floors.index(room) < floors.index(other), f"{name} imports {target}, which stands above it"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", "docs/architecture.md"])
def test_places_that_are_named_exist(page):
    text = (ROOT / page).read_text()
    for place in re.findall(r"`((?:hggdp_plugin|tests|docs|benchmarks|examples|\.ci)/[\w./]*)`", text):
        assert (ROOT / place).exists(), place
    for names, place in re.findall(r"((?:`\w+`(?:,| and)? )+)(?:\(and `\w+`\) )?(?:of|in) `([\w/]+\.py)`", text):
        for name in re.findall(r"\w{4,}", names):
            assert re.search(rf"^(?:class|def|) ?{name}\b", (ROOT / place).read_text(), re.MULTILINE), (name, place)


def test_data_files_are_in_the_wheel():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "hggdp_plugin"
    ]
    packaged = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    assert {path for path in PACKAGE.rglob("*.*") if path.suffix not in (".py", ".pyi", ".pyc")} == packaged


def hooks(text: str) -> set[str]:
    return set(re.findall(r"^ *(?:entry: )?((?:ruff|mypy|typos)[\w -]*?)(?: --check)?(?: \.)?$", text, re.MULTILINE))


def test_ci_runs_what_pre_commit_runs():
    assert hooks((ROOT / ".ci/run").read_text()) == hooks((ROOT / ".pre-commit-config.yaml").read_text())
