"""Several speeches at once: they join and leave between frames, and every step serves all that have room."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csm.generation.session import Session
from csm.generation.shared_step import Frame, Served, SharedStep, Speaking
from csm.generation.spoken_turn import Ending, SpokenTurn
from csm.generation.voices import Voice
from csm.system.threads import one_thread
from csm.tokenizer.opening import VoiceTokenizer
from csm.tokenizer.shared_decoder import Conditions, stream_decoder

# Frames of a speech that are made before its consumer takes them. Two are enough for the next step to find
# room: the consumer takes one while the other waits.
AHEAD = 2

# Takes the number of speeches of a step, and its seconds.
Observe = Callable[[int, float], None]


class SharedSteps:
    """Makes the frames of all speeches of a voice, a step of all of them at a time.

    A speech whose consumer is slow has no room and is left out of steps; one that fails, or is closed, ends
    alone. Texts are run by the threads that consume the speeches, beside the steps.

    Args:
        tokenizer: Tokenizer in eval mode, whose weights no longer change.
        expected: Speeches that are expected at once. On CUDA memory for as many is taken with the first one;
            where more come, the graphs are made again, and all wait for them.
        thread: Whether a thread of its own makes the steps; else whoever waits for a frame does.
        observe: Is called after every step.
    """

    def __init__(
        self,
        tokenizer: VoiceTokenizer,
        *,
        expected: int = 1,
        thread: bool = True,
        observe: Observe | None = None,
    ) -> None:
        self.decoder = stream_decoder(tokenizer)
        self._step = SharedStep(self.decoder, expected)
        self._observe = observe or (lambda speeches, seconds: None)
        # Reentrant: a speech that is dropped unclosed may be collected anywhere, and leaves then.
        self._lock = threading.RLock()
        self._due = threading.Condition(self._lock)
        self._made = threading.Condition(self._lock)
        self._speeches: list[Speaking] = []
        self._in_step: list[Speaking] = []
        # The thread that computes a step or something between two; the number of those that wait to do so
        # between two steps; and what is done when the computation is over.
        self._busy: threading.Thread | None = None
        self._asking = 0
        self._later: deque[Callable[[], None]] = deque()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="csm-steps", daemon=True) if thread else None
        if self._thread is not None:
            self._thread.start()

    @property
    def speeches(self) -> int:
        """Number of speeches that are open."""
        return len(self._speeches)

    def open(self, session: Session, voice: Voice) -> SharedSpeech:
        """Returns a new speech of a voice in a session; close it."""
        return SharedSpeech(self, session, voice)

    def close(self) -> None:
        """Ends all speeches with an error, and the thread; waits at most 30 s for a step that is computed."""
        with self._lock:
            self._closed = True
            self._due.notify_all()
            self._made.notify_all()
        if self._thread is not None:
            self._thread.join(30)

    def step(self) -> int:
        """Makes a frame of every speech that has room; returns their number."""
        with self._lock:
            while self._busy is not None or self._asking:
                self._made.wait()
            self._busy = threading.current_thread()
            self._in_step = due = [one for one in self._speeches if _is_due(one)]
        began = time.perf_counter()
        served: dict[Speaking, Served] = {}
        try:
            served = self._step(due) if due else {}
        except Exception as error:
            served = {one: Served(error=error) for one in due}
        finally:
            with self._lock:
                self._in_step = []
                self._deliver(served)
            self._release()
        if due:
            self._observe(len(due), time.perf_counter() - began)
        return len(due)

    # ---- for the speeches ----

    def join(self, speaking: Speaking) -> None:
        """Takes a speech into the steps."""
        with self._lock:
            self._speeches.append(speaking)

    def leave(self, speaking: Speaking) -> None:
        """Takes a speech out of the steps; nothing happens if it is out already."""
        with self._lock:
            self._speeches = [one for one in self._speeches if one is not speaking]

    def put(self, speaking: Speaking, turn: SpokenTurn | None, given: Iterable[Tensor] = ()) -> None:
        """Has the steps make the frames of a turn, or decode given ones."""
        with self._lock:
            speaking.turn, speaking.over, speaking.wanted = turn, False, True
            speaking.given.extend(given)
            self._due.notify()

    def take(self, speaking: Speaking) -> Frame | None:
        """Waits for the next frame; None where the turn is over.

        Raises:
            RuntimeError: The steps were closed.
            Exception: What went wrong in this speech.
        """
        while True:
            with self._lock:
                if speaking.waiting:
                    self._due.notify()
                    return speaking.waiting.popleft()
                if speaking.error is not None:
                    raise speaking.error
                if speaking.over:
                    return None
                if self._closed:
                    raise RuntimeError("the voice was closed while it spoke")
                if self._thread is not None:
                    self._made.wait()
                    continue
            self.step()

    def withdraw(self, speaking: Speaking) -> bool:
        """Takes back what was put, once no step computes it; returns whether that is so.

        It is not where a thread that computes a step collects a speech that was dropped unclosed.
        """
        with self._lock:
            speaking.wanted = False
            while speaking in self._in_step:
                if self._busy is threading.current_thread():
                    return False
                self._made.wait()
            speaking.turn = None
            speaking.given.clear()
            speaking.waiting.clear()
            return True

    def between(self, work: Callable[[], None]) -> None:
        """Does a work while no step is computed: what it changes belongs to the steps of all speeches.

        In a thread that computes a step, the work is done after the step, and its errors are dropped.
        """
        with self._lock:
            if self._busy is threading.current_thread():
                self._later.append(work)
                return
            self._asking += 1
            try:
                while self._busy is not None:
                    self._made.wait()
            finally:
                self._asking -= 1
                self._made.notify_all()
            self._busy = threading.current_thread()
        try:
            work()
        finally:
            self._release()

    # ---- the steps ----

    def _release(self) -> None:
        """Does what this thread put off, then lets other threads compute."""
        while True:
            with self._lock:
                self._busy = None
                if not self._later:
                    self._made.notify_all()
                    return
                self._busy, work = threading.current_thread(), self._later.popleft()
            with suppress(Exception):
                work()

    def _deliver(self, served: dict[Speaking, Served]) -> None:
        for one, result in served.items():
            if result.frame is not None:
                one.waiting.append(result.frame)
                one.drawn = result.frame.drawn
            one.over, one.error = one.over or result.over, result.error
        self._made.notify_all()

    def _work(self) -> None:
        try:
            with one_thread():
                while self._wait():
                    self.step()
        finally:  # whatever ends the thread, no caller is left waiting
            with self._lock:
                self._closed = True
                self._made.notify_all()

    def _wait(self) -> bool:
        """Waits until a speech is due; False once closed."""
        with self._lock:
            while not self._closed and not any(_is_due(one) for one in self._speeches):
                self._due.wait()
            return not self._closed


def _is_due(speaking: Speaking) -> bool:
    if not speaking.wanted or speaking.error is not None or len(speaking.waiting) >= AHEAD:
        return False
    return bool(speaking.given) or (speaking.turn is not None and not speaking.over)


class SharedSpeech:
    """A speech that is made together with others; its consumer takes frame after frame, in one thread.

    Args:
        steps: Makes its frames.
        session: Conversation that the speech belongs to, with the model of the other speeches.
        voice: Voice of the speech.
    """

    def __init__(self, steps: SharedSteps, session: Session, voice: Voice) -> None:
        self._steps, self._session, self._number = steps, session, voice.number
        conditions = Conditions(voice.speaker, voice.emotion, session.sampling.contrast)
        self._speaking = Speaking(session, steps.decoder.open(conditions), session.generator.get_state())
        steps.join(self._speaking)

    def __enter__(self) -> SharedSpeech:
        return self

    def __exit__(self, *error: object) -> None:
        self._steps.leave(self._speaking)

    def decode(self, frames: Iterable[Int[Tensor, " K"]]) -> Iterator[Float[Tensor, "1 S"]]:
        """Yields the audio that each of these frames completes."""
        frames = list(frames)
        self._steps.put(self._speaking, None, frames)
        try:
            for _ in frames:
                frame = self._steps.take(self._speaking)
                assert frame is not None
                yield frame.audio
        finally:
            self._steps.withdraw(self._speaking)

    @torch.no_grad()
    def speak(self, text: str) -> Generator[Frame, None, Ending]:
        """Speaks a text as a turn of the session; yields its frames and returns why it ended.

        As of `Session.speak`, a consumer that stops early leaves a whole turn behind: what was yielded.
        """
        session, taken, whole = self._session, 0, False
        turn = session.begin_turn(session.plan_turn(text, self._number, None))
        self._speaking.drawn = drawn = session.generator.get_state()
        self._steps.put(self._speaking, turn)
        try:
            while (frame := self._steps.take(self._speaking)) is not None:
                taken, drawn = taken + 1, frame.drawn
                yield frame
            whole = True
        finally:
            self._finish(turn, None if whole else taken, drawn)
        assert turn.ended is not None, "a turn that was finished has ended"
        return turn.ended

    def _finish(self, turn: SpokenTurn, taken: int | None, drawn: Tensor) -> None:
        """Ends a turn with what was taken of it, and gives it to the session.

        Args:
            turn: Turn that was put.
            taken: Frames that were taken; None: all that there are.
            drawn: State of the session's generator after them.
        """
        if not self._steps.withdraw(self._speaking):
            self._steps.between(partial(self._finish, turn, taken, drawn))
        elif turn.steps is not None:
            self._steps.between(partial(self._end, turn, taken, drawn))
        else:
            self._end(turn, taken, drawn)

    @torch.no_grad()
    def _end(self, turn: SpokenTurn, taken: int | None, drawn: Tensor) -> None:
        if taken is not None:
            turn.cut(taken)
            self._session.generator.set_state(drawn)
        try:
            self._session.stop_turn(turn)
        except BaseException:
            if turn.steps is not None:
                turn.steps.drop(turn)
            raise

    def flush(self) -> Float[Tensor, "1 S"]:
        """Returns the samples that the decoder still holds back."""
        return self._steps.decoder.flush(self._speaking.stream)
