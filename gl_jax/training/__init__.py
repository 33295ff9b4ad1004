"""Training: losses, optimizers, state, steps, devices, checkpoints, reports, the loop."""
