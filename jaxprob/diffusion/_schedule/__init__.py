"""TODO jaxprob/diffusion/_schedule."""
