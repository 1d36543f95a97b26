"""Data of a Trainer: modules over arrays, loaders of others, checks of their rows.

The order of the rows is a function of (seed, epoch), so a resumed run sees the rows
that the uninterrupted one saw.
"""
