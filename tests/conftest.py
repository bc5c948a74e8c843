"""One thread a process: the suite runs a process a core, and threads that wait on each other cost minutes."""

import torch

torch.set_num_threads(1)

# What tests run in processes of their own, and what writes the files that tests read: as modules with doctests, both
# would be run by their collection.
collect_ignore = ["golden", "programs"]
