"""Conventions: the encoding of photographs for a network, and of its output."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from gl_jax.config import GREY

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Convention:
    """How photographs are shown to a network, and how its output is read.

    The network sees `scale * (colour - offset)` in its own order of channels, the hole
    painted in `fill` before that, and the mask (1 = missing) as the fourth channel. Its
    output lies in [0, 1] in the same order of channels. Colours here are RGB in [0, 1].

    The methods take numpy and jax arrays and return the same kind.
    """

    channels: Literal["RGB", "BGR"] = "RGB"
    scale: float = 1.0
    offset: Color = (0.0, 0.0, 0.0)
    fill: Color = (0.0, 0.0, 0.0)

    @classmethod
    def gl_jax(cls, mean_color: Color) -> "Convention":
        """Ours and the authors': colours less the mean, so that the hole holds 0.

        The padding around the image holds 0 too (the authors' inpaint.lua). The output
        is a colour as it is: no mean is added.
        """
        return cls(offset=mean_color, fill=mean_color)

    def encode(self, image: Any, mask: Any) -> Any:
        """What the network sees, [..., h, w, 4], of a photograph and its hole.

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
        """A photograph without a hole, [..., h, w, 3]: what a discriminator sees."""
        xp = image.__array_namespace__()
        shifted = self.scale * (image - _color(xp, self.offset, image))
        return self._ordered(shifted)

    def decode(self, output: Any) -> Any:
        """The network's output [..., h, w, 3] as RGB in [0, 1]."""
        return self._ordered(output)

    def _ordered(self, image: Any) -> Any:
        return image[..., ::-1] if self.channels == "BGR" else image


def _color(xp: Any, color: Color, image: Any) -> Any:
    shape = (1,) * (image.ndim - 1) + (3,)
    return xp.reshape(xp.asarray(color, dtype=image.dtype), shape)


class Encoding(NamedTuple):
    """How a run shows photographs to its networks, and reads what they give."""

    completion: Callable[[Color], Convention]
    """(the mean colour of the training set) -> the completion network's convention."""
    discriminator: Convention = Convention()
    """Of images without a hole: photographs and fakes alike."""


_MMEDITING = Convention("BGR", 2.0, GREY, GREY)

ENCODINGS: dict[Literal["centred", "plain", "mmediting"], Encoding] = {
    "centred": Encoding(Convention.gl_jax),
    "plain": Encoding(lambda mean: Convention(fill=mean)),
    "mmediting": Encoding(lambda mean: _MMEDITING, _MMEDITING),
}
"""By the names that `config.DataConfig.encoding` gives them."""
