"""Photographs for training: from a folder, TFDS or the bundled few to batches of crops.

The one home of TensorFlow in this project, and it is imported only when data is read.
"""
