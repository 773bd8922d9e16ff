"""An endpoint for a model: one scheduler for all requests, and the protocols that clients speak."""
