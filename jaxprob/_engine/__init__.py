"""Compiled training: many steps of a learner in one dispatch.

A row passes six hops: `fit` takes it from an `ArrayLoader` as part of a `Stack`, the
`Stepper` hands the stack to its `Dispatcher`, that to the `LiveState`, that to a
`Runner`, whose `Program` calls `learner.update` on the batch. A copy of a good state
(`last_good`) and the batches since make any later step again, with the same bits.
`Layout` places rows and members on devices.
"""

from .._jaxpr import decompositions as decompositions  # its import is its effect
