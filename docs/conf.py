"""Configuration of the documentation: `sphinx-build -W --keep-going -b html docs docs/_build/html`."""

import os
import re
import sys
import warnings
from pathlib import Path

# Small networks gain nothing from more threads, and on shared cores the threads wait on each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import _public_names  # noqa: E402

# sphinx-gallery asks for the names of an example that it does not run
from sklearn.experimental import enable_iterative_imputer  # noqa: E402, F401

import sklearn_si  # noqa: E402

project = "sklearn_si"
author = "the sklearn_si developers"
project_copyright = author
version = release = sklearn_si.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    # MathJax is copied into the site, so that formulas need no network.
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build", "README.md"]
templates_path = ["_templates"]
default_role = "py:obj"
toc_object_entries_show_parents = "hide"

autosummary_generate = True
autodoc_default_options = {"member-order": "bysource"}
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "pydata_sphinx_theme"
html_title = "sklearn_si"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "footer_start": ["sphinx-version"],
    "footer_end": [],
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "tango",
}
# Pages without pages below them.
html_sidebars = {name: [] for name in ("index", "getting_started", "theory", "when_not", "glossary")}

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "within_subsection_order": "FileNameSortKey",
    "filename_pattern": r"/plot_",
    # scripts to be run, not pages
    "ignore_pattern": r"many_processes|quickstart\.py",
    "download_all_examples": False,
    "show_signature": False,
    "plot_gallery": "True",
    "abort_on_example_error": False,
    "only_warn_on_example_error": False,
    "remove_config_comments": True,
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("sklearn_si",),
    # its page of times would fetch scripts from elsewhere
    "write_computation_times": False,
}

warnings.filterwarnings("ignore", message="Matplotlib is currently using agg")

# A paragraph of a docstring that is a formula: an (in)equation with no words around it that a sentence would have.
_RELATION = re.compile(r"\s(=|~|:=|>=|<=|->)\s")
_SENTENCE = re.compile(r"[a-z]{2,}[.;:]$|`|^[-*] |^\.\. |::$")
_LINE = re.compile(r"(?!With )\S{1,16} (\([^)]*\) )?= .*[^.;:]$")


def _is_formula(paragraph):
    text = " ".join(line.strip() for line in paragraph)
    # a section with its underline, or a doctest
    if ">>>" in text or "---" in text:
        return False
    if len(paragraph) == 1 and _LINE.match(text) and "hence" not in text:
        return True
    words = re.findall(r"(?<![\w^{\\])[a-z]{4,}(?![\w(_])", text)
    return bool(_RELATION.search(text)) and not _SENTENCE.search(text) and len(words) <= 0.25 * len(text.split())


def literal_formulas(app, what, name, obj, options, lines):
    """Set the formulas of docstrings, which are plain text, as literal blocks."""
    paragraphs, out = [[]], []
    for line in lines:
        if line.strip():
            paragraphs[-1].append(line)
        else:
            paragraphs.append([])
    for i, paragraph in enumerate(paragraphs):
        if i and paragraph and not paragraph[0].startswith(" ") and _is_formula(paragraph):
            # side by side in the source, one above the other on the page
            parts = [part for line in paragraph for part in re.split(r" {3,}", line.strip())]
            out += [".. code-block:: text", "", *("    " + part for part in parts), ""]
        else:  # bars are norms, not substitutions
            out += [*(line if ">>>" in line else re.sub(r"(?<!\\)\|", r"\|", line) for line in paragraph), ""]
    lines[:] = out


def skip_members_of_sklearn(app, what, name, obj, skip, options):
    """Leave out what classes inherit from scikit-learn and torch: it is documented there."""
    module = getattr(obj, "__module__", None) or ""
    return True if module.split(".")[0] in ("sklearn", "torch") else None


def check_public_names(app):
    """Fail where a public name has no place on the API page."""
    missing = _public_names.missing()
    if missing:
        raise RuntimeError(f"docs/api.rst lacks {', '.join(missing)}")


def setup(app):
    """Connect the handlers."""
    app.connect("builder-inited", check_public_names, priority=1)
    app.connect("autodoc-process-docstring", literal_formulas, priority=400)
    app.connect("autodoc-skip-member", skip_members_of_sklearn)
