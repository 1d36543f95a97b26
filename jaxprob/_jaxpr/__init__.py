"""Programs of JAX taken apart and put together again.

The place for everything that reads or changes a jaxpr.
"""
