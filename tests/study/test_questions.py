"""The orders are balanced, each participant's own, and functions of seed and number."""

from collections import Counter

import pytest

from gl_jax.study import Kind
from gl_jax.study.questions import Question, make_orders

PHOTOGRAPHS = [f"p{i}" for i in range(7)]
METHODS = ["gl", "telea", "mean"]
KINDS: tuple[Kind, ...] = ("single", "pair")


def orders_of(
    kind: Kind, participants: int = 12, seed: int = 3
) -> list[list[Question]]:
    return make_orders(
        PHOTOGRAPHS, METHODS, kind, participants=participants, checks=4, seed=seed
    )


def is_check(question: Question) -> bool:
    return not question or any(picture.kind == "check" for picture in question)


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_shown_equally_often(kind: Kind) -> None:
    orders = orders_of(kind)
    shown = [[q for q in order if not is_check(q)] for order in orders]
    for questions in shown:
        # Each photograph once; each way once, and one of the six a second time.
        assert sorted(q[0].photograph for q in questions) == PHOTOGRAPHS
        methods = Counter(p.method for q in questions for p in q if p.method)
        assert max(methods.values()) - min(methods.values()) <= 1
        first_is_real = sum(q[0].kind == "truth" for q in questions)
        assert first_is_real in (3, 4)
    # Two blocks of six: each completion twice (a pair: on each side twice).
    together = Counter(q for questions in shown for q in questions)
    for photograph in PHOTOGRAPHS:
        of_it = {q: n for q, n in together.items() if q[0].photograph == photograph}
        counts = sorted(of_it.values())
        assert counts == ([2, 2, 2, 6] if kind == "single" else [2] * 6)


@pytest.mark.parametrize("kind", KINDS)
def test_an_order_follows_from_the_seed_and_the_number(kind: Kind) -> None:
    orders = orders_of(kind)
    assert orders_of(kind, participants=7) == orders  # whole blocks
    assert orders_of(kind, participants=13)[:12] == orders
    assert orders_of(kind, seed=4) != orders
    assert len({tuple(order) for order in orders}) == len(orders)


@pytest.mark.parametrize("kind", KINDS)
def test_checks_come_after_the_question_on_their_photograph(kind: Kind) -> None:
    for order in orders_of(kind):
        places = [i for i, question in enumerate(order) if is_check(question)]
        assert len(places) == 4
        for place in places:
            names = {picture.photograph for picture in order[place]}
            assert names <= {q[0].photograph for q in order[:place] if not is_check(q)}
        # One answer does not pass all of them.
        checks = [order[place] for place in places]
        if kind == "single":
            assert checks.count(()) == 2
        else:
            assert sum(check[0].kind == "check" for check in checks) == 2
