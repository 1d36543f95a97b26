r"""Markov chains whose stationary distribution is the posterior $p_T(w \mid D)$.

`NUTS` and `HMC` make transitions on the whole data set, which they may reject. `SGLD`
and `SGHMC` make steps on minibatches, whose bias vanishes with the step size.
`chains.py` holds what all four share: where chains start, which draws are kept, and the
posterior that the draws are; `run_chains.py` runs them in memory or on disk.
"""
