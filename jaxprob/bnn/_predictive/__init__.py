r"""From a posterior to $p(y \mid x) = \mathbb E_{q(w)}[p(y \mid f_w(x))]$.

`predict` draws models $w_s$ and computes their outputs $f_{w_s}(x)$ in batches of rows.
A `Predictive` is the mixture with these parameters; `calibrate` rescales its confidence
on held-out rows; `diagnose` compares the outputs of several chains.
"""
