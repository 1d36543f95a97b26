"""Programs of JAX taken apart and put together again.

The place for everything that reads or changes a jaxpr, and the only one that imports
`jax.extend`, `jax.interpreters` or private names. Three tricks gain time alone and can
be turned off (`switches`): `batch_second`, `convolutions`, `examples_last`.
"""
