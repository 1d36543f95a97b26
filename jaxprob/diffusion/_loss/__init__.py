"""TODO jaxprob/diffusion/_loss."""
