"""The main job on real data, from one command: `python -m examples.demo`.

Regression and classification with a Bayesian neural network and image generation with a
diffusion model, each trained in Lightning; figures are printed, pictures are written.
"""
