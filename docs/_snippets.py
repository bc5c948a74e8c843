"""Run the Python code of the pages and of the README: `python docs/_snippets.py [--full] [PAGE ...]`.

Fits are short unless `--full` is given.
"""

import ast
import inspect
import os
import re
import sys
import tempfile
import textwrap
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
# Pages whose blocks are tables of equivalents, not a program.
PIECES = {"coming_from.rst"}
_FENCED = re.compile(r"^()```python\n(.*?)^```$", re.M | re.S)
_BLOCK = re.compile(r"^( *)(?:[*-] (?:- )?)*\.\. code-block:: python\n\n((?:\1 +.*\n|\n)+)", re.M)


def pages():
    """The README, and the pages that are written by hand."""
    return [README, *sorted([*HERE.glob("*.rst"), *(HERE / "guide").glob("*.rst")])]


def blocks(page):
    """The Python blocks of a page, with the line at which each begins."""
    text = page.read_text(encoding="utf-8")
    pattern = _FENCED if page == README else _BLOCK
    return [(text[: m.start(2)].count("\n") + 1, textwrap.dedent(m[2])) for m in pattern.finditer(text)]


def short_fits(max_iter=30):
    """Each constructor that takes `max_iter`, and its defaults with few steps and a scaling that is not chosen."""
    short = {"max_iter": max_iter, "preprocessing": "standardize"}
    from sklearn_si import InterpolantDiffusion, InterpolantFlow, MultimarginalFlow, SchroedingerBridge
    from sklearn_si.tables import TableSynthesizer

    for kind in (InterpolantFlow, InterpolantDiffusion, MultimarginalFlow, SchroedingerBridge, TableSynthesizer):
        given = list(inspect.signature(kind.__init__).parameters.values())[1:]
        defaults = [short.get(p.name, p.default) for p in given]
        first = next(i for i, p in enumerate(given) if p.default is not p.empty)
        yield kind.__init__, tuple(defaults[first:])


class _ShortSteps(ast.NodeTransformer):
    """Numbers of steps that a page writes down, limited."""

    def __init__(self, most):
        self.most = most

    def visit_keyword(self, node):
        if node.arg == "max_iter" and isinstance(node.value, ast.Constant):
            node.value = ast.copy_location(ast.Constant(min(node.value.value, self.most)), node.value)
        return self.generic_visit(node)


def run(page, max_iter=None):
    """Execute the blocks of a page in one namespace; numbers of steps that it writes down are at most `max_iter`."""
    names = {"__name__": page.stem}
    for line, block in blocks(page):
        tree = ast.parse("\n" * (line - 1) + block, str(page))
        tree = tree if max_iter is None else _ShortSteps(max_iter).visit(tree)
        exec(compile(tree, str(page), "exec"), names)


def main(arguments):
    """Run the chosen pages, or all."""
    os.environ.setdefault("MPLBACKEND", "agg")
    chosen = [name for name in arguments if name != "--full"]
    if "--full" not in arguments:
        for constructor, defaults in short_fits():
            constructor.__defaults__ = defaults
    os.chdir(tempfile.mkdtemp())
    for page in pages():
        if page.name in PIECES or (chosen and page.stem not in chosen):
            continue
        began = time.perf_counter()
        run(page)
        print(f"== {page.stem}: {len(blocks(page))} blocks, {time.perf_counter() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
