"""TODO jaxprob/diffusion/_density."""
