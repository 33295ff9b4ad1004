"""Batches of training crops from a folder, a TFDS dataset or the bundled photographs.

Only this package uses TensorFlow, which it imports when data is read.
"""
