r"""Densities: $\log p(x)$ by the probability flow, and the flow as a map to noise.

`trace.py` estimates the divergence of the flow, `log_prob.py` integrates it, and
`latent.py` encodes and decodes. `map_examples.py` takes many examples.
"""
