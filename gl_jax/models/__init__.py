"""The networks: arrays in, arrays out. They take numbers, never a configuration."""
