"""The learning rate warms up, falls along a cosine and ends at its floor."""

from __future__ import annotations

import pytest

from csm.training.options import TrainingConfig
from csm.training.schedule import average_decay, learning_rate

CONFIG = TrainingConfig(steps=100, warmup_steps=10, learning_rate=1.0, final_learning_rate_ratio=0.1)


def test_warm_up_is_linear_and_starts_above_0() -> None:
    assert [learning_rate(CONFIG, step) for step in (1, 5, 10)] == pytest.approx([0.1, 0.5, 1.0])


def test_the_middle_of_the_cosine_is_half_way_and_the_last_step_is_the_floor() -> None:
    assert learning_rate(CONFIG, 55) == pytest.approx(0.55)
    assert learning_rate(CONFIG, 100) == pytest.approx(0.1)


def test_the_rate_never_rises_after_warm_up() -> None:
    rates = [learning_rate(CONFIG, step) for step in range(10, 101)]
    assert rates == sorted(rates, reverse=True)


def test_a_run_shorter_than_its_warm_up_and_one_without_warm_up_work() -> None:
    short = TrainingConfig(steps=5, warmup_steps=10, learning_rate=1.0)
    assert learning_rate(short, 5) == pytest.approx(0.5)
    assert learning_rate(TrainingConfig(steps=1, warmup_steps=0, learning_rate=1.0), 1) <= 1.0


def test_the_average_forgets_the_initial_weights_quickly_and_then_keeps_its_decay() -> None:
    assert average_decay(0.99, 1) == pytest.approx(2 / 11)
    assert average_decay(0.99, 10**6) == 0.99
