r"""The log joint density $\log p(y \mid f_w(x)) + \log p(w)$ and its parts.

Likelihoods map an output $f$ to a distribution over y, priors give each leaf of the
model a distribution. `families` dispatches on the class of a distribution over y: the
expected information $F(f)$, class probabilities, and the mean of a Gaussian. What can
be said of y in one row from the outputs of many models is in `row_statistics`.
"""
