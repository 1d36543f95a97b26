r"""Denoisers: $D(x, s) = E[x_0 \mid x_0 + s z = x]$ at a level $s = \sigma_t/\alpha_t$.

`denoiser.py` has the contract, and `preconditioned.py` makes a denoiser of a network.
Guidance and thresholds wrap denoisers. `last_level.py` reads the distribution of the
highest level off a denoiser; samplers and densities begin there.
"""
