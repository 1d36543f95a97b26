r"""Velocity fields, whose flow carries a source distribution to that of the data.

Here time runs from the source, t = 0, to the data, t = 1, as in Lipman et al.:
$x_t = (1 - t)\,y + t\,x$ with y from the source and x from the data.

`velocity_field.py` has the contract and makes a field of a network. `source.py` has the
distributions at which flows begin, `coupling.py` the pairing of their examples with the
data.
"""
