r"""Schedules: $x_t = \alpha_t x_0 + \sigma_t z$, from data at t = 0 to noise.

A schedule gives $\alpha_t$, $\sigma_t$, their rates and the time of a log-SNR. The rest
of the package uses its noise level $\sigma_t/\alpha_t$. A schedule of the user's is
checked against its own equations when it is made.
"""
