"""Conventions: the encoding of photographs as a network's input, and of its output."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from gl_jax.config import GREY

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Convention:
    """The encoding of a network's input and output.

    The hole is painted with `fill`; the network's input is then
    `scale * (colour - offset)`, in the order `channels`, and the mask (1 = missing) as
    the fourth channel. Its output is in [0, 1], in the same order of channels. `offset`
    and `fill` are RGB in [0, 1].

    The methods take numpy or jax arrays and return the same kind.
    """

    channels: Literal["RGB", "BGR"] = "RGB"
    scale: float = 1.0
    offset: Color = (0.0, 0.0, 0.0)
    fill: Color = (0.0, 0.0, 0.0)

    @classmethod
    def gl_jax(cls, mean_color: Color) -> "Convention":
        """Returns gl_jax's convention, which is the authors': colours less the mean.

        The hole then holds 0, like the padding around the image (the authors'
        inpaint.lua). The mean is not added to the output.
        """
        return cls(offset=mean_color, fill=mean_color)

    def encode(self, image: Any, mask: Any) -> Any:
        """Returns the network's input, [..., h, w, 4], for a photograph and its hole.

        `image` is float RGB in [0, 1], [..., h, w, 3]; `mask` is [..., h, w] or
        [..., h, w, 1] with 1 = missing.
        """
        xp = image.__array_namespace__()
        if mask.ndim < image.ndim:
            mask = mask[..., None]
        mask = xp.astype(mask, image.dtype)
        filled = image * (1 - mask) + mask * _color(xp, self.fill, image)
        return xp.concat([self.encode_image(filled), mask], axis=-1)

    def encode_image(self, image: Any) -> Any:
        """Returns a discriminator's input, [..., h, w, 3]: an image without a hole."""
        xp = image.__array_namespace__()
        shifted = self.scale * (image - _color(xp, self.offset, image))
        return self._ordered(shifted)

    def decode(self, output: Any) -> Any:
        """Returns the network's output [..., h, w, 3] as RGB in [0, 1]."""
        return self._ordered(output)

    def _ordered(self, image: Any) -> Any:
        return image[..., ::-1] if self.channels == "BGR" else image


def _color(xp: Any, color: Color, image: Any) -> Any:
    shape = (1,) * (image.ndim - 1) + (3,)
    return xp.reshape(xp.asarray(color, dtype=image.dtype), shape)


class Encoding(NamedTuple):
    """The conventions of a run's networks."""

    completion: Callable[[Color], Convention]
    """Mean colour of the training set -> the completion network's convention."""
    discriminator: Convention = Convention()
    """For images without a hole, real and completed alike."""


_MMEDITING = Convention("BGR", 2.0, GREY, GREY)

ENCODINGS: dict[Literal["centred", "plain", "mmediting"], Encoding] = {
    "centred": Encoding(Convention.gl_jax),
    "plain": Encoding(lambda mean: Convention(fill=mean)),
    "mmediting": Encoding(lambda mean: _MMEDITING, _MMEDITING),
}
"""Encodings by the name in `config.DataConfig.encoding`."""
