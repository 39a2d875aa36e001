"""Who computes replies, and when: charged to a simulated clock, or on a thread in real time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Protocol

# Each step of a task is one unit of work that nothing interrupts; what it yields is its product.
Task = Generator[Any, None, None]
Charge = Callable[[float], float]


class Worker(Protocol):
    """Runs tasks one after the other, a unit of work at a time."""

    def begin(self, task: Task, *, urgent: bool = False) -> None:
        """Appends a task, which begins when those before it have ended.

        Args:
            task: Task.
            urgent: Whether it precedes all tasks that are not: it begins after the unit that runs, the task
                of that unit continues when it has ended, and its products need no room.
        """

    def cancel(self, task: Task) -> None:
        """Closes a task between two units, and drops its products that were not returned yet."""

    def run(self, now: float, room: bool) -> list[Any]:
        """Returns the products that are ready.

        Args:
            now: Seconds of the conversation's clock.
            room: Whether there is room for more products; without it only units of urgent tasks begin.
        """

    def close(self) -> None:
        """Cancels everything and ends the worker."""


class _Queue:
    """Tasks that have not ended, in the order in which they run."""

    def __init__(self) -> None:
        self._urgent: deque[Task] = deque()
        self._others: deque[Task] = deque()

    def append(self, task: Task, urgent: bool) -> None:
        """Puts a task behind those of its kind."""
        (self._urgent if urgent else self._others).append(task)

    def remove(self, task: Task) -> None:
        """Takes a task out, if it is there."""
        for tasks in (self._urgent, self._others):
            if task in tasks:
                tasks.remove(task)

    def first(self, room: bool) -> Task | None:
        """Returns the task whose unit is next; None where there is none, or no room for it."""
        tasks = self._urgent or (self._others if room else None)
        return tasks[0] if tasks else None

    def clear(self) -> list[Task]:
        """Takes out and returns all tasks."""
        tasks = [*self._urgent, *self._others]
        self._urgent.clear()
        self._others.clear()
        return tasks


class SimulatedWorker:
    """Computes inline and charges the time to the conversation's clock: a product is ready that much later.

    Args:
        charge: Seconds that a unit costs, given its measured seconds. None charges what was measured.
        timer: Returns seconds. `time.process_time` leaves out what other processes take of the machine.
    """

    def __init__(self, charge: Charge | None = None, timer: Callable[[], float] = time.perf_counter) -> None:
        self._charge = charge or (lambda measured: measured)
        self._timer = timer
        self._tasks = _Queue()
        self._ready: deque[tuple[float, Task, Any]] = deque()
        self._free = 0.0  # time at which the last unit ended
        self._now = 0.0

    def begin(self, task: Task, *, urgent: bool = False) -> None:
        """Appends a task; an urgent one precedes the others from the next unit on."""
        self._tasks.append(task, urgent)

    def cancel(self, task: Task) -> None:
        """Closes a task; the unit that was begun still takes its time."""
        self._tasks.remove(task)
        self._ready = deque(row for row in self._ready if row[1] is not task)
        task.close()

    def run(self, now: float, room: bool) -> list[Any]:
        """Runs the units that begin before `now`."""
        self._free = max(self._free, self._now)
        self._now = now
        while self._free <= now and (task := self._tasks.first(room)) is not None:
            self._unit(task)
        ready = []
        while self._ready and self._ready[0][0] <= now:
            ready.append(self._ready.popleft()[2])
        return ready

    def close(self) -> None:
        """Cancels everything."""
        for task in self._tasks.clear():
            self.cancel(task)

    def _unit(self, task: Task) -> None:
        began = self._timer()
        try:
            product = next(task)
        except StopIteration:
            self._tasks.remove(task)
            return
        self._free += self._charge(self._timer() - began)
        if product is not None:
            self._ready.append((self._free, task, product))


class ThreadWorker:
    """Computes on a thread of its own, in real time: products are ready when they have been computed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tasks = _Queue()
        self._ready: deque[tuple[Task, Any]] = deque()
        self._cancelled: list[Task] = []
        self._room, self._ended = True, False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="csm-conversation", daemon=True)
        self._thread.start()

    def begin(self, task: Task, *, urgent: bool = False) -> None:
        """Appends a task; an urgent one precedes the others once the unit that runs has ended."""
        with self._changed:
            self._tasks.append(task, urgent)
            self._changed.notify()

    def cancel(self, task: Task) -> None:
        """Has the thread close a task before anything else."""
        with self._changed:
            self._tasks.remove(task)
            self._ready = deque(row for row in self._ready if row[0] is not task)
            self._cancelled.append(task)
            self._changed.notify()

    def run(self, now: float, room: bool) -> list[Any]:
        """Returns what is ready; raises what the thread raised."""
        with self._changed:
            if self._error is not None:
                raise self._error
            if room and not self._room:
                self._changed.notify()
            self._room = room
            ready = [product for _, product in self._ready]
            self._ready.clear()
            return ready

    def close(self) -> None:
        """Cancels everything and waits until the thread has ended, at most 30 s: a unit may be running."""
        with self._changed:
            self._cancelled += self._tasks.clear()
            self._ended = True
            self._changed.notify()
        self._thread.join(30)

    def _work(self) -> None:
        try:
            while (task := self._next()) is not None:
                self._unit(task)
        except BaseException as error:  # raised by `run` in the thread that calls it
            with self._changed:
                self._error = error

    def _unit(self, task: Task) -> None:
        product = next(task, StopIteration)
        with self._changed:
            if product is StopIteration:
                self._tasks.remove(task)
            elif product is not None and task not in self._cancelled:
                self._ready.append((task, product))

    def _next(self) -> Task | None:
        """Waits for a task with room for its product; closes the cancelled ones first."""
        while True:
            with self._changed:
                while not (self._cancelled or self._ended or self._tasks.first(self._room)):
                    self._changed.wait()
                cancelled, self._cancelled = self._cancelled, []
                if not cancelled:
                    return None if self._ended else self._tasks.first(self._room)
            for task in cancelled:
                task.close()
