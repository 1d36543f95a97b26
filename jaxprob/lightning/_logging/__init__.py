"""Metrics, summaries, images and histograms for the callbacks and loggers of a Trainer.

Metrics of single steps stay on the device until a callback or a logger reads them.
"""
