"""When several processes pay: seconds of a fit, its score on held-out rows, and the rate of steps, by processes.

    python benchmarks/studies/processes.py --repeats 3

Every process has one thread. A mixture of 8 columns; each of the processes gets its share of --rows rows, and all take
the same number of steps with the same batch together.
"""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np

CASES = {  # widths, batch, steps
    "3 x 128, batch 512": ((128, 128, 128), 512, 400),
    "3 x 128, batch 4096": ((128, 128, 128), 4096, 200),
    "2 x 512, batch 512": ((512, 512), 512, 200),
    "2 x 512, batch 4096": ((512, 512), 4096, 60),
}


def rows(n):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 8)) @ np.triu(np.ones((8, 8))) + 4.0 * rng.integers(2, size=(n, 1))


def work(path, n):
    """One of the processes."""
    from torch import distributed

    from sklearn_si import InterpolantFlow

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if size > 1:
        distributed.init_process_group("gloo")
    X = rows(n + 2000)
    mine, test, report = np.array_split(X[:n], size)[rank], X[n:], {}
    for name, (widths, batch, steps) in CASES.items():
        began = time.perf_counter()
        flow = InterpolantFlow(
            preprocessing="whiten", hidden_layer_sizes=widths, batch_size=batch, max_iter=steps, random_state=0
        ).fit(mine)
        seconds = time.perf_counter() - began
        report[name] = {"seconds": seconds, "steps": flow.n_iter_, "score": flow.score(test)}
    if rank == 0:
        pathlib.Path(path).write_text(json.dumps(report))
    if size > 1:
        distributed.destroy_process_group()


def launch(size, n):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/report.json"
        shared = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, __file__, "--work", path, "--rows", str(n)]
        ranks = [{**shared, "RANK": str(rank), "WORLD_SIZE": str(size)} for rank in range(size)]
        processes = [subprocess.Popen(command, env=environment) for environment in ranks]
        assert [process.wait() for process in processes] == [0] * size
        return json.loads(pathlib.Path(path).read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", help="path of the report of one process (set by this program)")
    args = parser.parse_args()
    if args.work:
        work(args.work, args.rows)
        return
    reports = {size: [] for size in (1, 2)}
    for _ in range(args.repeats):
        for size, found in reports.items():
            found.append(launch(size, args.rows))
    for name in CASES:
        seconds = {size: np.median([r[name]["seconds"] for r in found]) for size, found in reports.items()}
        scores = {size: found[0][name]["score"] for size, found in reports.items()}
        told = "   ".join(f"{n} process(es) {seconds[n]:6.1f} s {scores[n]:8.3f} nats" for n in reports)
        print(f"{name:<22} {told}   ratio of seconds {seconds[1] / seconds[2]:.2f}", flush=True)


if __name__ == "__main__":
    main()
