"""Build the documentation and put it into an archive for a release: `python tools/docs_archive.py [FOLDER]`.

Needs the extra [docs]. The archive is FOLDER/sklearn_si-VERSION-docs.zip (FOLDER is dist unless given); its pages need
no network. Warnings are errors. The gallery takes some minutes; `-D plot_gallery=0` as further arguments leaves it out.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


def build(html, *options):
    """Build the pages into a folder; raises CalledProcessError where sphinx warns."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", *options, "docs", str(html)]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def main(folder="dist", *options):
    """Build, and write the archive; returns its path."""
    html = ROOT / "docs" / "_build" / "html"
    build(html, *options)
    version = re.search(r'"([^"]+)"', (ROOT / "sklearn_si" / "_version.py").read_text(encoding="utf-8").split("=")[-1])
    name = f"sklearn_si-{version[1]}-docs"
    pathlib.Path(folder).mkdir(exist_ok=True)
    archive = shutil.make_archive(str(pathlib.Path(folder) / name), "zip", html)
    print(f"{archive}: {os.path.getsize(archive) / 2**20:.1f} MB")
    return archive


if __name__ == "__main__":
    main(*sys.argv[1:])
