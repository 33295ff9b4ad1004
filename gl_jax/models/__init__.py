"""The networks, as Flax modules that take numbers instead of a configuration."""
