"""Arrays, processes, checks, callbacks and frames."""
