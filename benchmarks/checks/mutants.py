"""Whether the tests notice: faults are planted one at a time in a copy of the checkout, and the tests run on each.

    python benchmarks/checks/mutants.py [--quick] [--jobs 2] [--only NAME ...]

The faults are in `faults.py`. Each names a function and an expression or statements in it, compared as syntax, so that
layout does not matter. A fault is caught if a test fails with it that passes without; a module that cannot be
imported catches nothing. The tests of the module come first, and only what passes them meets the rest of the suite
(not with --quick).
"""

import argparse
import collections
import concurrent.futures
import contextlib
import importlib
import multiprocessing
import os
import pathlib
import shutil
import sys
import tempfile
import time
from xml.etree import ElementTree

from faults import FAULTS
from places import replaced

FORK = multiprocessing.get_context("fork")
HERE = pathlib.Path(__file__).resolve().parents[2]
# Of 30 faults, so many have to be caught.
NEEDED = 28 / 30
# Seconds of a run of tests: a fault that makes them hang is not caught.
PATIENCE = 900
# What the tests import of other libraries.
SHARED = (
    "pytest", "torch", "pandas", "polars", "narwhals", "hypothesis.extra.numpy", "matplotlib.pyplot", "scipy.stats",
    "sklearn.ensemble", "sklearn.mixture", "sklearn.utils.estimator_checks", "rich.progress", "skops.io",
)  # fmt: skip
# Test files, cheapest first; others follow.
CHEAP_FIRST = (
    "losses", "lazy_rows", "named", "schedules", "maps", "networks", "loop", "solvers", "splines", "couplings",
    "samples", "training", "identities", "fields", "sampling", "table_metrics", "codec", "likelihood", "densities",
    "persistence", "bridge", "distillation", "fields_learned", "compose", "fitting", "fitted_densities", "conditions",
    "contract", "preprocessing_choice", "transport", "bad_input", "synthesizer", "workflows",
)  # fmt: skip


def stem(path):
    return pathlib.PurePath(path).stem.removeprefix("test_")


def cost(path):
    place = {name: k for k, name in enumerate(CHEAP_FIRST)}
    return place.get(stem(path), len(place)), path


def suite():
    """Stem -> the path of a test file in the checkout; stems are unique."""
    return {stem(path): str(path.relative_to(HERE)) for path in sorted(HERE.glob("tests/**/test_*.py"))}


def first_tests(fault):
    """The tests of the module, and its doctests."""
    files = suite()
    return [*(files[name] for name in fault.tests), f"sklearn_si/{fault.file}"]


def other_tests(fault):
    modules = [str(path.relative_to(HERE)) for path in HERE.glob("sklearn_si/**/*.py")]
    return sorted({*suite().values(), *modules} - {*first_tests(fault)}, key=cost)


def planted(fault, folder):
    """The text of the faulty module of a checkout."""
    source = (folder / "sklearn_si" / fault.file).read_text(encoding="utf-8")
    return replaced(source, fault.place, fault.old, fault.new)


def checkout(folder):
    """A copy of the checkout."""
    left = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "shared", "_build", "generated")
    shutil.copytree(HERE, folder, ignore=left)
    return folder


class OneOfEachFirst:
    """A plugin: one instance of every test of all files, then the other instances, file by file."""

    @staticmethod
    def pytest_collection_modifyitems(items):
        seen, places = collections.Counter(), {}
        for item in items:
            name = item.nodeid.partition("[")[0]
            places[item] = seen[name] > 0
            seen[name] += 1
        items.sort(key=places.__getitem__)


def pytest_in(folder, arguments):
    """What the forked process does: pytest, in a copy of the checkout."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ.update(PYTHONPATH=str(folder), PYTHONDONTWRITEBYTECODE="1")
    sys.dont_write_bytecode = True
    with open(os.devnull, "w") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
        importlib.import_module("pytest").main(arguments, plugins=[OneOfEachFirst()])


def run(folder, tests, *options):
    """Run some tests in a copy: those that failed, and whether all modules could be imported."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    arguments = [*tests, "-q", "-p", "no:cacheprovider", "-W", "ignore", *options, "--tb=no"]
    arguments += [f"--junitxml={report}", "-o", "junit_family=xunit1"]
    # forked, so that torch and its like are imported once for all faults
    process = FORK.Process(target=pytest_in, args=(folder, arguments))
    process.start()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        raise TimeoutError
    failed, importable = [], report.exists()
    for case in ElementTree.parse(report).iter("testcase") if importable else ():
        faults = [*case.findall("failure"), *case.findall("error")]
        importable &= all(fault.get("message") != "collection failure" for fault in faults)
        failed += [f"{case.get('file')}::{case.get('name')}"] * bool(faults)
    return failed, importable


def verdict(fault, folder, quick, processes):
    """What the tests say of a fault: the verdict, the first test that failed, and seconds."""
    began, path = time.perf_counter(), checkout(folder) / "sklearn_si" / fault.file
    path.write_text(planted(fault, folder), encoding="utf-8")
    try:
        failed, importable = run(folder, first_tests(fault), "-x", "-n", "0")
        if importable and not failed and not quick:
            failed, importable = run(folder, other_tests(fault), "-x", "-n", str(processes))
        said = "import error" if not importable else "caught" if failed else "SLIPPED"
    except TimeoutError:
        said, failed = "hangs", []
    shutil.rmtree(folder)
    return said, failed[0] if said == "caught" else "", time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="faults whose name holds one of these")
    parser.add_argument("--jobs", type=int, default=1, help="faults that are tried at the same time")
    parser.add_argument("--quick", action="store_true", help="run the tests of the module alone")
    parser.add_argument("--processes", type=int, default=2, help="of a run of the rest of the suite")
    args = parser.parse_args()
    faults = [f for f in FAULTS if not args.only or any(name in f.name for name in args.only)]
    if not faults:
        sys.exit("No fault of that name.")
    for fault in faults:
        planted(fault, HERE)
    began, found = time.perf_counter(), {}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in SHARED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with tempfile.TemporaryDirectory() as temporary:
        folders = [pathlib.Path(temporary) / str(k) for k in range(len(faults))]
        with concurrent.futures.ProcessPoolExecutor(args.jobs, FORK) as pool:
            how = [args.quick] * len(faults), [args.processes] * len(faults)
            for fault, (said, test, seconds) in zip(faults, pool.map(verdict, faults, folders, *how), strict=True):
                found[fault.name] = said, test
                print(f"{said:<12} {seconds:6.1f} s  {fault.name:<66} {test}", flush=True)
        # a test that fails without the fault as well says nothing of it
        tests = sorted({path for fault in faults for path in first_tests(fault)}, key=cost)
        unsound = run(checkout(pathlib.Path(temporary) / "as it is"), tests, "-n", "0")[0]
    for name, (_, test) in found.items():
        if test in unsound:
            print(f"not counted: {name}: {test} fails without it as well")
    caught = sum(said == "caught" and test not in unsound for said, test in found.values())
    print(f"{caught} of {len(faults)} caught in {(time.perf_counter() - began) / 60:.0f} minutes")
    sys.exit(caught < NEEDED * len(faults))


if __name__ == "__main__":
    main()
