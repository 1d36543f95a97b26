r"""Laplace's method: $q(w) = \mathcal N(\hat w, T (G + \mathrm{diag}(\tau))^{-1})$.

`Laplace` trains the mode $\hat w$ and then computes the curvature $G = \sum_i J_i^\top
H_i J_i$ of the log-likelihood there in one pass over the data. `curvature.py` holds the
forms of G that can be factorised (full, Kronecker, diagonal; `low_rank.py` the fourth),
`curvature_pass.py` the pass; $\tau$, the precision of the prior, enters afterwards, so
that `tune_prior` needs no data.

`matrix_free.py` draws from the same Gaussian without any form of G: `gauss_newton.py`
has its products with vectors, `conjugate_gradients.py` solves, and the posterior is
made of the solutions, `laplace_draws.py`.
"""
