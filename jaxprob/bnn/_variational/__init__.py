r"""Variational inference: a Gaussian $q(w)$ that maximises the evidence lower bound.

$$\mathcal L = \mathbb E_{q(w)}[\log p(\mathcal D \mid w)] - \mathrm{KL}(q \| p)$$

`MeanFieldVI` fits independent Gaussians, `LowRankVI` and `FullRankVI` correlated ones,
by any optax optimiser; `IVON` fits independent Gaussians by natural gradients.
"""
