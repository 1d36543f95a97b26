"""Learners: everything that can be trained, one step at a time.

A **learner** is four functions (`learner`); everything else that the engine can use of
one is a capability, an abstract class (`capabilities`), and a wrapper of a learner has
an answer to each (`wrapper`). `GradientDescent` minimises a loss; averages (`ema`), low
precision and loss scales change how. `batch`, `loader` and `host_batch` bring rows.
"""
