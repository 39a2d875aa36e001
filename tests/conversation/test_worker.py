"""Work is charged to the clock, or done on a thread; a cancelled task leaves nothing behind."""

import threading
import time

import pytest

from csm.conversation.worker import SimulatedWorker, ThreadWorker


def counting(closed: list, until: int = 3):
    try:
        yield from range(1, until + 1)
    finally:
        closed.append(True)


def test_a_product_is_ready_when_its_charge_has_passed() -> None:
    worker = SimulatedWorker(lambda measured: 0.05)
    worker.begin(counting([]))
    assert worker.run(0.0, True) == [] and worker.run(0.049, True) == []
    assert worker.run(0.06, True) == [1]
    assert worker.run(0.20, True) == [2, 3]


def test_without_room_nothing_is_computed_and_idle_time_is_not_saved_up() -> None:
    worker = SimulatedWorker(lambda measured: 0.05)
    worker.begin(counting([]))
    assert worker.run(1.0, False) == []
    assert worker.run(1.02, True) == [] and worker.run(1.06, True) == [1]


@pytest.mark.parametrize("make", [lambda: SimulatedWorker(lambda measured: 0.5), ThreadWorker])
def test_a_cancelled_task_is_closed_and_the_next_one_runs(make) -> None:
    worker, closed = make(), []
    endless = counting(closed, 10**9)
    worker.begin(endless)
    for now in range(500):
        if worker.run(now, True):
            break
        time.sleep(0.01)
    worker.cancel(endless)
    worker.begin(iter_of("next"))
    products, tries = [], 0
    while "next" not in products and tries < 500:
        products, tries = products + worker.run(1000 + tries, True), tries + 1
        time.sleep(0.01)
    assert products[-1] == "next"
    worker.close()
    assert closed == [True]


def iter_of(*products):
    yield from products


def test_a_thread_waits_for_room() -> None:
    worker, computed = ThreadWorker(), threading.Semaphore(0)

    def task():
        for number in range(100):
            computed.release()
            yield number

    worker.run(0.0, False)
    worker.begin(task())
    assert not computed.acquire(timeout=0.1)
    worker.run(0.0, True)
    assert computed.acquire(timeout=5)
    worker.close()


def test_an_error_reaches_the_conversation() -> None:
    worker = ThreadWorker()

    def task():
        yield 1
        raise ZeroDivisionError

    worker.begin(task())
    with pytest.raises(ZeroDivisionError):
        for _ in range(500):
            worker.run(0.0, True)
            time.sleep(0.01)
    worker.close()


def test_an_urgent_task_runs_between_two_units_of_another_and_that_one_lasts_on() -> None:
    worker = SimulatedWorker(lambda measured: 0.05)
    worker.begin(iter_of("frame 0", "frame 1", "frame 2", "frame 3"))
    worker.begin(iter_of("later"))
    assert worker.run(0.06, True) == ["frame 0"]  # the second frame is being made
    worker.begin(iter_of("words"), urgent=True)
    worker.begin(iter_of("more words"), urgent=True)
    assert worker.run(0.16, True) == ["frame 1", "words"]
    expected = ["more words", "frame 2", "frame 3", "later"]
    assert worker.run(0.21, True) + worker.run(0.40, True) == expected


@pytest.mark.parametrize("make", [lambda: SimulatedWorker(lambda measured: 0.01), ThreadWorker])
def test_an_urgent_task_needs_no_room(make) -> None:
    worker, products = make(), []
    worker.run(0.0, False)
    worker.begin(iter_of("frame 0", "frame 1", "frame 2", "frame 3"))
    worker.begin(iter_of("words"), urgent=True)
    for now in range(1, 500):
        products += worker.run(now, False)
        if products:
            break
        time.sleep(0.01)
    assert products == ["words"]
    assert worker.run(501, False) == []
    worker.close()


def test_an_urgent_task_runs_on_the_thread_between_two_units_of_another() -> None:
    worker, order = ThreadWorker(), []
    running, asked = threading.Event(), threading.Event()

    def synthesis():
        for number in range(3):
            order.append(f"frame {number}")
            running.set()
            assert asked.wait(10)  # the urgent task comes during the first frame
            yield number

    def recognition():
        order.append("words")
        yield "words"

    worker.begin(synthesis())
    assert running.wait(10)
    worker.begin(recognition(), urgent=True)
    asked.set()
    products = []
    for now in range(500):
        products += worker.run(now, True)
        if len(products) == 4:
            break
        time.sleep(0.01)
    worker.close()
    assert order == ["frame 0", "words", "frame 1", "frame 2"]
    assert products == [0, "words", 1, 2]


@pytest.mark.parametrize("make", [lambda: SimulatedWorker(lambda measured: 0.0), ThreadWorker])
def test_a_cancelled_urgent_task_is_closed_and_gives_nothing(make) -> None:
    worker, closed = make(), []
    task = counting(closed)
    worker.run(0.0, False)
    worker.begin(task, urgent=True)
    worker.cancel(task)
    worker.begin(iter_of("words"), urgent=True)
    products = []
    for now in range(1, 500):
        products += worker.run(now, False)
        if products:
            break
        time.sleep(0.01)
    worker.close()
    assert products == ["words"]
