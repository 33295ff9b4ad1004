"""The networks' two operations as processors compute them fastest, gradients included.

XLA's gradients of convolutions are several times slower on processors than its forward
convolution. Nothing else in the project depends on this folder: without it the networks
take `gl_jax.models.ops.NATIVE` and train two to three times more slowly there.
"""

from gl_jax.cpu.convolution import ops
from gl_jax.cpu.options import compiler_options

__all__ = ["compiler_options", "ops"]
