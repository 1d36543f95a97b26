r"""Samplers: from noise to data in $x = x_t/\alpha_t$, down a grid of noise levels.

`grid.py` and `grids.py` say at which levels, and each method has a file: ODE and SDE
solvers of diffrax, multistep tables, Heun's method, Langevin corrections. `sample.py`
draws many samples.
"""
