"""The Trainer: its options, callbacks, precision, devices, signals and counters.

Options that torch would carry out are carried out by the JAX step or rejected. All
names of Lightning that are not public stand in private.py.
"""
