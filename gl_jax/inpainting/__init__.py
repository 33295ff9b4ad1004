"""Completes photographs: masks, windows of the network, blending, batches of files."""
