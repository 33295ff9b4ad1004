r"""DCGAN (Radford, Metz and Chintala, ICLR 2016) at 64x64: the prior of semantic inpainting.

    gl-jax train experiments/dcgan.py --workdir runs/dcgan --data.source FOLDER
    gl-jax export --workdir runs/dcgan --discriminators --output dcgan.safetensors
    gl-jax complete --method semantic=dcgan.safetensors --image photo.jpg --mask mask.png

An unconditional GAN by the steps of the others: the completion network is a generator, which
is given codes instead of photographs, and all of a photograph is missing. In samples/ the
last two columns are what it makes of codes; L1 and PSNR mean nothing here.

Hardware and cost, from arithmetic: 2.5 GFLOP a photograph and update, 1.6e11 a step of 64.
`small` has half the channels: a quarter of it, about 2 seconds a step on two processor cores.

The numbers are the paper's: Adam with 0.0002 and b1 0.5 for both networks, 128 photographs a
step there and 64 here (as in its Torch code), codes uniform in [-1, 1], kernels N(0, 0.02).
"""

from dataclasses import replace

from gl_jax.config import (
    Config,
    DataConfig,
    HolesConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
)

CODES = 100

ADAM = OptimizerConfig("adam", 2e-4, {"b1": 0.5})

config = Config(
    name="dcgan",
    model=ModelConfig(discriminators="global"),
    data=DataConfig(batch_size=64, image_size=64, resize=(64, 72), flip=True),
    holes=HolesConfig(min_size=32, max_size=32, local_size=64),
    loss=LossConfig(alpha=1.0, fakes="raw"),
    completion_optimizer=ADAM,
    discriminator_optimizer=ADAM,
    schedule=ScheduleConfig(
        completion_steps=0, discriminator_steps=0, total_steps=100_000
    ),
    run=RunConfig(
        log_every=20,
        save_every=200,
        eval_every=400,
        sample_every=400,
        sample_images=8,
        keep_best=0,
    ),
)

configs = {
    "small": replace(
        config,
        name="dcgan-small",
        model=replace(config.model, width=0.5),
        schedule=replace(config.schedule, total_steps=4_000),
    )
}


def parts(config):
    """A generator in the place of the completion network, and DCGAN's discriminator."""
    import jax
    import jax.numpy as jnp

    from gl_jax import compilation
    from gl_jax.config import GREY
    from gl_jax.holes import Holes
    from gl_jax.models.dcgan import Discriminator, Generator
    from gl_jax.training import default_parts, whole
    from gl_jax.weights.convention import Convention, Encoding

    def sample_codes(key):
        """A code for each image, uniform in [-1, 1]."""
        return jax.vmap(lambda k: jax.random.uniform(k, (CODES,), minval=-1.0))(key)

    def sample_holes(key, image_shape, batch_key=None):
        """All of each image is missing."""
        corner = jnp.zeros((len(key), 2), jnp.int32)
        return Holes(jnp.ones((len(key), *image_shape, 1)), corner)

    paper = default_parts(config)
    size = config.data.image_size
    shared = {
        "width": config.model.width,
        "dtype": jnp.dtype(config.model.compute_dtype),
        "momentum": config.model.batch_norm_momentum,
        "ops": compilation.ops(),
    }
    signed = Convention(scale=2.0, offset=GREY, fill=GREY)
    return replace(
        paper,
        completion=Generator(size=size, codes=CODES, **shared),
        discriminator=Discriminator(size=size, **shared),
        views={"global": whole},
        objective=replace(paper.objective, completion={}),
        sample_holes=sample_holes,
        sample_codes=sample_codes,
        encoding=Encoding(lambda mean_color: signed, signed),
    )
