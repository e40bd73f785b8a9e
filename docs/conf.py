"""Sphinx configuration: python -m sphinx -W -b html docs docs/_build/html."""

import re

from sphinx.application import Sphinx
from sphinx_gallery.sorting import ExplicitOrder

import hggdp_plugin

project = "hggdp_plugin"
copyright = "the hggdp_plugin developers"
version = release = hggdp_plugin.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinxarg.ext",
    "sphinx-mathjax-offline",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
# ExplicitOrder below cannot be pickled: Sphinx then reads the gallery's pages at every build.
suppress_warnings = ["config.cache"]

templates_path = ["_templates"]
html_theme = "furo"
html_title = "hggdp_plugin"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # the docstrings give the types, with shapes
autodoc_member_order = "bysource"
autosummary_ignore_module_all = False
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

copybutton_prompt_text = "$ "

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "ignore_pattern": r"make_\w+\.py$",
    "within_subsection_order": ExplicitOrder(
        [
            "multi_coil.py",
            "single_coil.py",
            "radial.py",
            "kooshball.py",
            "cine.py",
            "uncertainty.py",
            "raw_file.py",
            "prior_as_prox.py",
            "own_prior.py",
        ]
    ),
    "backreferences_dir": "api/generated/examples",
    "doc_module": ("hggdp_plugin",),
    "abort_on_example_error": True,
    "matplotlib_animations": False,
    "remove_config_comments": True,
    "capture_repr": (),
    "show_signature": False,
    "min_reported_time": 3600,
    "show_memory": False,
    "image_scrapers": ("matplotlib",),
    "download_all_examples": False,
}


def escape_plain_text(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Escape the stars of shapes such as (coils, *k), and the bars of |x|, which are not markup."""
    lines[:] = [re.sub(r"(?<=[(\s])\*(?=[a-z_.]+(\[[^\]]*\])?[,)])", r"\\*", line) for line in lines]
    lines[:] = [re.sub(r"(`[^`]*`)|\|(\w)\|", lambda m: m[1] or rf"\|{m[2]}\|", line) for line in lines]


def setup(app: Sphinx) -> None:
    """Connect the hook above; napoleon's comes later."""
    app.connect("autodoc-process-docstring", escape_plain_text, priority=400)
