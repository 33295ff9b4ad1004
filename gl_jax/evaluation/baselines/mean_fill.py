"""The least that a method can do: one colour."""

from gl_jax.evaluation.baselines import Hole, Image, paint_mean


def mean_fill(image: Image, mask: Hole) -> Image:
    """The hole in the mean colour of the image's own known pixels."""
    return paint_mean(image, mask)
