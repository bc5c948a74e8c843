"""A fitted model on tensors."""
