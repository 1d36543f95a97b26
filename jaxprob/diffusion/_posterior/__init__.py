r"""Conditioning of a diffusion model on measurements, $y = A(x) + n$.

`observation.py` says what was measured, `local_gaussian.py` linearises it at a point.
`conditioned.py` is the base class of the methods, each a file with its reference: they
take a denoiser of $p(x)$ and are one of $p(x \mid y)$. `twisted_smc.py` weighs
particles that they propose, and `split_gibbs.py` needs none of them: both are exact in
a limit.
"""
