"""One thread a process: the suite runs a process a core, and threads that wait on each other cost minutes."""

import torch

torch.set_num_threads(1)

# What tests run in processes of their own.
collect_ignore = ["programs"]
