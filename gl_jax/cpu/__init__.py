"""The networks' two operations with fast gradients on processors.

On processors, XLA's gradients of convolutions are several times slower than its forward
convolution. The rest of the project does not depend on this folder: without it the
networks use `gl_jax.models.ops.NATIVE` and train two to three times more slowly there.
"""

from gl_jax.cpu.convolution import ops
from gl_jax.cpu.options import compiler_options

__all__ = ["compiler_options", "ops"]
