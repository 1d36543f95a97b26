"""TODO jaxprob/diffusion/_denoiser."""
