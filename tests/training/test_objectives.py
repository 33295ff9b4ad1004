"""The losses of equations 2 to 5, and of other games, at values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from gl_jax.config import Config, LossConfig
from gl_jax.training.objectives import (
    GAMES,
    absolute_loss,
    adversarial_loss,
    completion_loss,
    discriminator_loss,
    feature_loss,
    saturating_loss,
    structure_loss,
)
from gl_jax.training.parts import default_parts


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


def test_absolute_loss_is_averaged_over_the_image_or_over_each_hole():
    images = jnp.zeros((2, 4, 4, 3))
    # 4 of 16 pixels are off by 0.5; of the second image one of 16, by 0.25.
    masks = jnp.concatenate([one_hole(), jnp.zeros((1, 4, 4, 1)).at[:, 3, 3].set(1.0)])
    completed = images.at[0].set(0.5).at[1].set(-0.25)
    by_image = absolute_loss(completed, images, masks)
    assert float(by_image) == pytest.approx((4 * 0.5 + 0.25) / 32)
    by_hole = absolute_loss(completed, images, masks, normalizer="hole")
    assert float(by_hole) == pytest.approx((0.5 + 0.25) / 2)


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


# --- all games ------------------------------------------------------------------------------

REAL, FAKE = np.array([0.0, 2.0]), np.array([-3.0, 1.0])


def soft(*values: float) -> float:
    """The mean of log(1 + exp(value))."""
    return float(np.mean(np.log1p(np.exp(values))))


BY_HAND = {
    # What D minimises of the logits above, and what C minimises.
    "non_saturating": (soft(0, -2) + soft(-3, 1), soft(3, -1)),
    "saturating": (soft(0, -2) + soft(-3, 1), -soft(-3, 1)),
    "hinge": ((1 + 0) / 2 + (0 + 2) / 2, (3 - 1) / 2),
    # Mao et al. 2017, Eq. 9, of D's outputs 0.5, 2.5 and -2.5, 1.5.
    "least_squares": ((0.25 + 2.25 + 6.25 + 2.25) / 4, (12.25 + 0.25) / 4),
    "wasserstein": (-1 - 1, 1),
    # Against the means -1 of fake and 1 of real.
    "relativistic": (soft(-1, -3) + soft(-4, 0), soft(4, 0) + soft(1, 3)),
}


def losses(
    game: str, real: np.ndarray, fake: np.ndarray
) -> tuple[jax.Array, jax.Array]:
    sides = GAMES[game]
    real, fake = jnp.asarray(real), jnp.asarray(fake)
    seen = (fake, real) if sides.relativistic else (fake,)
    return sides.discriminator(real, fake), sides.adversarial(*seen)


def test_every_game_is_worked_out():
    assert set(BY_HAND) == set(GAMES)


@pytest.mark.parametrize("game", BY_HAND)
def test_both_sides_of_a_game_are_those_worked_out_by_hand(game):
    real, fake = REAL.astype(np.float32), FAKE.astype(np.float32)
    values = [float(value) for value in losses(game, real, fake)]
    np.testing.assert_allclose(values, BY_HAND[game], rtol=1e-6)


def test_least_squares_asks_for_outputs_of_0_and_1():
    """Eq. 9 of Mao et al. 2017 in numpy; D's output is its logit and a half."""
    logits = np.random.default_rng(0).normal(size=(2, 7)).astype(np.float32)
    real, fake = logits + 0.5
    expected = np.mean((real - 1) ** 2) / 2 + np.mean(fake**2) / 2
    values = [float(value) for value in losses("least_squares", *logits)]
    np.testing.assert_allclose(values, [expected, np.mean((fake - 1) ** 2) / 2], 1e-6)


def test_relativistic_logits_count_from_the_mean_of_the_other_side():
    """The relativistic average in numpy, its sigmoids and logarithms written out."""
    real, fake = np.random.default_rng(0).normal(size=(2, 7))

    def sigmoid(values: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-values))

    real_score, fake_score = sigmoid(real - fake.mean()), sigmoid(fake - real.mean())
    expected = (
        -np.mean(np.log(real_score)) - np.mean(np.log(1 - fake_score)),
        -np.mean(np.log(fake_score)) - np.mean(np.log(1 - real_score)),
    )
    values = losses("relativistic", real.astype(np.float32), fake.astype(np.float32))
    np.testing.assert_allclose([float(value) for value in values], expected, rtol=1e-5)


@pytest.mark.parametrize("game", GAMES)
def test_a_games_sides_pull_the_logits_of_completions_apart(game):
    """D wants photographs up and completions down, C completions up."""
    real, fake = jnp.array([0.2, -0.3, 0.1]), jnp.array([-0.1, 0.3, 0.0])

    def side(index: int) -> list[jax.Array]:
        return jax.grad(lambda r, f: losses(game, r, f)[index], argnums=(0, 1))(
            real, fake
        )

    of_real, of_fake = side(0)
    assert (of_real < 0).all() and (of_fake > 0).all()
    _, wanted = side(1)
    assert (wanted < 0).all()


@pytest.mark.parametrize("game", GAMES)
def test_extreme_logits_stay_finite(game):
    """Values and gradients, though sigmoids are 0 and 1."""
    extreme = jnp.array([-2000.0, 2000.0])
    for index in range(2):
        value, slopes = jax.value_and_grad(
            lambda r, f, index=index: losses(game, r, f)[index], argnums=(0, 1)
        )(extreme, extreme)
        assert np.isfinite(value) and np.isfinite(slopes).all()


# --- feature matching -----------------------------------------------------------------------


def test_feature_loss_is_averaged_within_layers_and_over_them():
    fake = [jnp.zeros((1, 2, 2, 1)), jnp.array([[1.0, 2.0]])]
    real = [jnp.full((1, 2, 2, 1), 3.0), jnp.array([[2.0, 0.0]])]
    assert float(feature_loss(fake, real)) == pytest.approx((3 + (1 + 2) / 2) / 2)
    assert float(feature_loss(real, real)) == 0


def test_feature_loss_wants_as_many_layers_of_both():
    layer = jnp.zeros((1, 2))
    with pytest.raises(ValueError, match="shorter"):
        feature_loss([layer, layer], [layer])


# --- from a configuration -------------------------------------------------------------------


@pytest.mark.parametrize("completion", ["squared", "absolute"])
def test_a_configuration_names_the_completion_loss_and_its_weights(completion):
    loss = LossConfig(
        completion=completion,
        normalizer="hole",
        completion_weight=3.0,
        structure_weight=0.5,
        joint_completion_weight=0.25,
    )
    objective = default_parts(Config(loss=loss)).objective
    terms = objective.completion
    assert {name: term.weight for name, term in terms.items()} == {
        "completion_loss": 3.0,
        "structure_loss": 0.5,
    }
    images = jnp.zeros((1, 4, 4, 3))
    value = terms["completion_loss"].loss(images + 0.5, images, one_hole())
    assert float(value) == pytest.approx({"squared": 0.25, "absolute": 0.5}[completion])
    assert objective.joint_completion_weight == 0.25


@pytest.mark.parametrize("game", GAMES)
def test_a_configuration_names_the_game(game):
    objective = default_parts(Config(loss=LossConfig(adversarial=game))).objective
    sides = (objective.discriminator, objective.adversarial, objective.relativistic)
    assert sides == tuple(GAMES[game])
    assert objective.penalty is None and objective.matching is None
