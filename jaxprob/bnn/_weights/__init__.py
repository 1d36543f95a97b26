r"""Random leaves: distributions in the places of a model's arrays.

A `Gaussian` leaf is $w \sim \mathcal N(\mu, \sigma^2)$. `choice` says which arrays are
random by default, `randomise` replaces them, and `sample_leaves` draws all of them, so
that a plain model comes back. Layers that draw their own weights, running statistics
and a learned noise level are here too. Nothing here knows priors or data.
"""
