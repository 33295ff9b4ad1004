"""`gl-jax serve`: a page in the browser and its server (docs/serve.md)."""
