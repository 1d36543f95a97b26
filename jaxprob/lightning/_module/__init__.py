"""LightningModules that a user makes: of a learner, a posterior or a denoiser.

They hold what a user reads, calls and overrides; everything else is their `_engine`.
"""
