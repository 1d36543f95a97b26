"""The contracts of inference methods, and the methods that other families build on.

A method (`AbstractInference`) is a learner that ends in a posterior q(w), or wraps
another method (`AbstractWrapper`). Families meet here alone: by capabilities, such as
inference of some leaves given all others. `MAP` finds the mode; `Blocks` infers each
part of a model by another method, q(w) = prod_b q_b(w_b).
"""
