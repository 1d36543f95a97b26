"""Calls as a user makes them: without the hook that checks every annotation."""

import contextlib

import jaxtyping


@contextlib.contextmanager
def unhooked():
    """Annotations are not checked inside: our own errors are what a user sees."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
