"""Rendered bodies in flight: bounded in all and per service, and never a reason to stand still."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from hub.errors import NotSentError
from hub.pipeline.byte_budget import ByteBudget

MB = 1_000_000


def test_bodies_share_the_budget_and_give_it_back() -> None:
    budget = ByteBudget(10 * MB)
    with ExitStack() as held:
        for service in range(3):
            held.enter_context(budget.hold(service, "x" * 3 * MB))
        with pytest.raises(NotSentError, match="HUB_BODIES_IN_FLIGHT"):
            held.enter_context(budget.hold(9, "x" * 3 * MB))
        with pytest.raises(NotSentError):
            budget.check(9, 3 * MB)
    budget.check(9, 3 * MB)
    with budget.hold(9, "x" * 3 * MB):
        pass


def test_one_service_leaves_half_to_the_others() -> None:
    budget = ByteBudget(10 * MB)
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(budget.hold(1, "x" * 2 * MB))
        with pytest.raises(NotSentError):
            held.enter_context(budget.hold(1, "x" * 2 * MB))
        held.enter_context(budget.hold(2, "x" * 2 * MB))


def test_a_body_larger_than_the_budget_goes_alone_and_small_ones_always() -> None:
    budget = ByteBudget(MB)
    with budget.hold(1, "x" * 5 * MB), budget.hold(1, "x" * 1000), budget.hold(2, None), pytest.raises(NotSentError):
        budget.check(2, 70_000)
    with budget.hold(2, "x" * 70_000):
        pass


def test_memory_counts_not_characters() -> None:
    budget = ByteBudget(10 * MB)
    with budget.hold(1, "\U0001f600" * MB), pytest.raises(NotSentError), budget.hold(1, "\U0001f600" * MB):
        pass
