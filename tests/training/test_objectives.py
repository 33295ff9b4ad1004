"""The losses of equations 2 to 5 at values that can be worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from gl_jax.training.objectives import (
    adversarial_loss,
    completion_loss,
    discriminator_loss,
    saturating_loss,
    structure_loss,
)


def one_hole(size: int = 4) -> jax.Array:
    return jnp.zeros((1, size, size, 1)).at[:, :2, :2].set(1.0)


def test_completion_loss_is_averaged_over_the_image():
    images = jnp.zeros((1, 4, 4, 3))
    # 4 of 16 pixels are off by 0.5.
    loss = completion_loss(images + 0.5, images, one_hole())
    assert float(loss) == pytest.approx(0.25 * 4 / 16)


def test_completion_loss_can_be_averaged_over_the_hole():
    images = jnp.zeros((1, 4, 4, 3))
    loss = completion_loss(images + 0.5, images, one_hole(), normalizer="hole")
    assert float(loss) == pytest.approx(0.25)


def test_known_pixels_do_not_count():
    images = jnp.zeros((1, 4, 4, 3))
    wrong_outside = jnp.where(one_hole() == 1, 0.0, 1.0) * jnp.ones((1, 4, 4, 3))
    assert float(completion_loss(wrong_outside, images, one_hole())) == 0.0


def test_structure_loss_is_what_ssim_lacks_of_1_after_the_hole_is_filled():
    generator = np.random.default_rng(0)
    images = generator.random((2, 24, 24, 3)).astype(np.float32)
    completed = generator.random((2, 24, 24, 3)).astype(np.float32)
    mask = np.zeros((2, 24, 24, 1), np.float32)
    mask[:, 8:16, 6:12] = 1
    filled = np.where(mask == 1, completed, images)
    similarities = [
        structural_similarity(
            filled[i],
            images[i],
            channel_axis=-1,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for i in range(2)
    ]
    loss = float(structure_loss(*map(jnp.asarray, (completed, images, mask))))
    assert loss == pytest.approx(1 - np.mean(similarities), abs=1e-5)


def test_structure_loss_minds_a_step_at_the_rim_more_than_the_same_error_inside():
    images = jnp.full((1, 40, 40, 3), 0.5)
    mask = jnp.zeros((1, 40, 40, 1)).at[:, 8:32, 8:32].set(1.0)
    gradient = jax.grad(structure_loss)(images + 0.01, images, mask)[0, :, :, 0]
    rim, middle = jnp.abs(gradient[8, 12:28]), jnp.abs(gradient[20, 12:28])
    assert rim.min() > middle.max()


def test_discriminator_loss_of_an_undecided_discriminator_is_log_4():
    undecided = jnp.zeros(5)
    assert float(discriminator_loss(undecided, undecided)) == pytest.approx(
        np.log(4), rel=1e-6
    )


def test_discriminator_loss_falls_where_it_is_right():
    sure = jnp.full(3, 4.0)
    assert discriminator_loss(sure, -sure) < discriminator_loss(-sure, sure)


@pytest.mark.parametrize("logit", [-3.0, 0.0, 2.0])
def test_adversarial_losses_are_those_of_the_paper(logit):
    score = 1 / (1 + np.exp(-logit))
    logits = jnp.array([logit])
    saturating = saturating_loss(logits)
    assert float(saturating) == pytest.approx(np.log(1 - score), rel=1e-5)
    assert float(adversarial_loss(logits)) == pytest.approx(-np.log(score), rel=1e-5)


def test_both_adversarial_losses_want_a_higher_score():
    for loss in (saturating_loss, adversarial_loss):
        assert float(jax.grad(loss)(jnp.array([0.3]))[0]) < 0


def test_extreme_logits_stay_finite():
    extreme = jnp.array([-200.0, 200.0])
    assert np.isfinite(float(discriminator_loss(extreme, extreme)))
    assert np.isfinite(float(saturating_loss(extreme)))
