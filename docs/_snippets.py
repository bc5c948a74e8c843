"""Run the Python blocks of the pages with few training steps: `python docs/_snippets.py [PAGE ...]`."""

import inspect
import os
import re
import sys
import tempfile
import textwrap
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Pages whose blocks are tables of equivalents, not a program.
PIECES = {"coming_from.rst"}
_BLOCK = re.compile(r"^( *)(?:[*-] (?:- )?)*\.\. code-block:: python\n\n((?:\1 +.*\n|\n)+)", re.M)


def pages():
    """The pages that are written by hand."""
    return sorted([*HERE.glob("*.rst"), *(HERE / "guide").glob("*.rst")])


def blocks(page):
    """The Python blocks of a page, with the line at which each begins."""
    text = page.read_text(encoding="utf-8")
    return [(text[: m.start(2)].count("\n") + 1, textwrap.dedent(m[2])) for m in _BLOCK.finditer(text)]


def shorten(max_iter=30):
    """Make all fits short, whatever the pages say."""
    from sklearn_si import InterpolantDiffusion, InterpolantFlow, SchroedingerBridge
    from sklearn_si.tables import TableSynthesizer

    for kind in (InterpolantFlow, InterpolantDiffusion, SchroedingerBridge, TableSynthesizer):
        given = list(inspect.signature(kind.__init__).parameters.values())[1:]
        defaults = [max_iter if p.name == "max_iter" else p.default for p in given]
        first = next(i for i, p in enumerate(given) if p.default is not p.empty)
        kind.__init__.__defaults__ = tuple(defaults[first:])


def run(page):
    """Execute the blocks of a page in one namespace."""
    names = {"__name__": page.stem}
    for line, block in blocks(page):
        exec(compile("\n" * (line - 1) + block, str(page), "exec"), names)


def main(chosen):
    """Run the chosen pages, or all."""
    os.environ.setdefault("MPLBACKEND", "agg")
    shorten()
    os.chdir(tempfile.mkdtemp())
    for page in pages():
        if page.name in PIECES or (chosen and page.stem not in chosen):
            continue
        began = time.perf_counter()
        run(page)
        seconds = time.perf_counter() - began
        print(f"== {page.relative_to(HERE)}: {len(blocks(page))} blocks, {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
