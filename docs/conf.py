"""How Sphinx builds the site: `make docs`."""

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "neurodyn"
author = copyright = "The neurodyn developers"
release = version = version_of("neurodyn")

extensions = [
    "mathml",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "_ext", "_templates"]
templates_path = ["_templates"]
html_theme = "pydata_sphinx_theme"
html_title = "neurodyn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
_ALONE = ("start", "gallery", "papers", "REPRODUCTION", "benchmarks", "scale", "changelog", "citation")
html_sidebars: dict[str, list[str]] = {page: [] for page in _ALONE}  # where there is no section to navigate
html_context = {"default_mode": "auto"}
html_show_sourcelink = False

# Every page of code runs when the site is built, and an error fails it.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "both"
autodoc_typehints_description_target = "documented"  # a signature suffices where there is no more to say
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # a function as a default has no text that Sphinx could read
python_maximum_signature_line_length = 80
napoleon_google_docstring = False
nitpicky = False


def _escape_bars(app: Any, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    """Keep |x| as it is written, where reStructuredText would look for a substitution."""
    lines[:] = [re.sub(r"\|(?=\S)([^|]*)\|", r"\\|\1\\|", line) for line in lines]


def _keep_colons(app: Any, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    """Hide the colon in a property's sentence from Napoleon, which takes what precedes it for a type."""
    if what in ("attribute", "property"):
        lines[:1] = [line.replace(": ", " – ", 1) for line in lines[:1]]


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _keep_colons, priority=400)
    app.connect("autodoc-process-docstring", _escape_bars)
