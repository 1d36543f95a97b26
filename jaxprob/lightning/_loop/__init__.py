"""TODO jaxprob/lightning/_loop."""
