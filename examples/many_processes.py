"""One density, fitted by several processes together, each with rows of its own.

    torchrun --nproc-per-node 2 examples/many_processes.py

`fit` joins the group that the launcher has made; the model is the same in all processes, and the first one saves it.
"""

import numpy as np
from torch import distributed

import sklearn_si
from sklearn_si import InterpolantFlow

distributed.init_process_group("gloo")  # "nccl" where each process has a GPU
rank, size = distributed.get_rank(), distributed.get_world_size()

# each process makes, or reads, its part of the rows
rng = np.random.default_rng(rank)
X = rng.normal(size=(20_000, 4)) @ np.triu(np.ones((4, 4)))
X += 4.0 * rng.integers(2, size=(20_000, 1))

flow = InterpolantFlow(max_iter=600, verbose=1, random_state=0)  # one process prints
score = flow.fit(X).score(X[:2000])
print(f"process {rank} of {size}: {score:.3f} nats on rows of its own", flush=True)
if rank == 0:
    sklearn_si.save(flow, "flow.si")
distributed.destroy_process_group()
