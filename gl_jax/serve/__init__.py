"""`gl-jax serve`: a page in the browser, and the small server behind it (docs/serve.md)."""
