"""Checkpoints as files: written whole, sealed by a hash, verified, found again.

A checkpoint is a dictionary of plain data that `torch.load(weights_only=True)` reads.
JAX arrays travel in it as torch tensors of the same bits, beside a description of the
module in JSON. Nothing here knows the loop of training.
"""
