"""A conversation between a user and a voice in real or simulated time: one object for both sides."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from csm.conversation import listener as listening
from csm.conversation.backchannels import Backchannels, ByWords, Question, ShortSpeech
from csm.conversation.events import EventLog
from csm.conversation.listener import Heard, Listener, VoiceActivity
from csm.conversation.live_config import LiveConfig
from csm.conversation.playout import Playout
from csm.conversation.repliers import Replier
from csm.conversation.speaker import Chunk, PlayedWords, ReplyEnd, Speaker, UserTurn, Words
from csm.conversation.transcriber import FastTranscriber, Transcriber
from csm.conversation.turn_end import Patience, SilenceAlone, TurnEnd
from csm.conversation.user_audio import UserAudio
from csm.conversation.worker import SimulatedWorker, Task, Worker
from csm.generation.talker import Talker

FADE_S = 0.005  # a voice that stops within a period of its pitch would click
HELD_FOR_WORDS_S = 0.3  # a voice that resumes while words are recognised may stop again after a syllable


class TranscriptTurn(NamedTuple):
    """A turn as the user's screen shows it: who, from when to when in samples, and the words."""

    user: bool
    start: int
    end: int
    text: str


class LiveConversation:
    """Takes the user's audio as it comes and gives the voice's audio as it is due.

    The clock counts samples of the voice at `rate`; `speak` advances it. There is no other clock: the caller
    paces the conversation, in real time or faster.

    Args:
        talker: Voice; conversations may share one.
        replier: Source of words.
        config: Settings.
        speaker: Name of the voice; None is the main one.
        worker: Who computes; None charges measured times to the clock.
        transcriber: Recogniser of the user's words; None is tiny.en.
        activity: Voice activity of the user; None is silero-vad.
        turn_end: What tells the end of the user's turn from a pause; None is 0.5 s of silence.
        backchannels: What separates backchannels from short interruptions; None takes the words that
            `transcriber` recognises.

    Attributes:
        rate: Samples per second of the clock and of both sides' audio in the log.
        log: Everything that happened.
        turns: Transcript, in the order in which turns ended.
    """

    def __init__(
        self,
        talker: Talker,
        replier: Replier,
        config: LiveConfig | None = None,
        *,
        speaker: str | None = None,
        worker: Worker | None = None,
        transcriber: Transcriber | None = None,
        activity: VoiceActivity | None = None,
        turn_end: TurnEnd | None = None,
        backchannels: Backchannels | None = None,
    ) -> None:
        self.config = config = config or LiveConfig()
        self.rate = talker.tokenizer.config.sample_rate
        self.log = EventLog(self.rate)
        self.turns: list[TranscriptTurn] = []
        self.now = 0
        self.worker = worker or SimulatedWorker()
        transcriber = transcriber or FastTranscriber()
        self.speaker = Speaker(talker, replier, transcriber, speaker, config.seed)
        self.turn_end = turn_end or SilenceAlone()
        self.backchannels = backchannels or ByWords(transcriber)
        self._listener = Listener(config.listener, activity, silence=self.turn_end.silence)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._user = UserAudio(self.rate, listening.RATE, config.longest_turn)
        self._reply: Playout | None = None
        self._onset = self._reply_begin = 0
        self._last_voice = 0
        self._due = math.inf
        self._user_end = 0
        self._words: Words | None = None
        self._task: Task | None = None
        self._typed = False  # whether the reply answers a typed turn
        self._unspoken = 0.0  # samples that `step` owes, below 1
        self._tail = 0.0  # last sample of the voice
        self._over = False  # the user speaks over the voice, and it is open whether that is a turn
        self._question: Question | None = None

    # ---- the two sides ----

    def hear(self, samples: Float[Tensor, " S"], rate: int) -> None:
        """Takes the user's next samples, full scale = 1.

        Raises:
            ValueError: The samples have another shape, are not finite, or the rate is out of range.
        """
        for change in self._listener.push(self._user.push(samples, rate)):
            self._hear_change(change)
        self._user.forget()

    def speak(self, count: int) -> Float[Tensor, " S"]:
        """Returns the voice's next `count` samples and advances the clock by them."""
        self._collect()
        audio = torch.zeros(count) if self._reply is None else self._play(self._reply, count)
        if self._tail and not bool(audio[:1]):
            # A voice that stops within a period would click.
            fade = min(count, round(FADE_S * self.rate))
            audio[:fade] = self._tail * torch.linspace(1, 0, fade)
        if count:
            self._tail = float(audio[-1])
        self.now += count
        if self._reply is not None and self._reply.over and self._reply.released and not self._reply.held:
            self._end_reply()
        return audio

    def step(self, samples: Float[Tensor, " S"], rate: int) -> Float[Tensor, " S"]:
        """Returns the voice's audio of the time in which the user's samples come, and processes these.

        What the voice does in this step depends on earlier steps alone, as it must in real time.
        """
        self._unspoken += len(samples) * self.rate / rate if rate > 0 else 0.0
        audio = self.speak(int(self._unspoken))
        self._unspoken -= len(audio)
        self.hear(samples, rate)
        return audio

    def type(self, text: str) -> None:
        """Takes a turn that the user typed; it interrupts the voice as a spoken one does.

        Raises:
            ValueError: The text is empty.
        """
        if not text.strip():
            raise ValueError("text is empty: expected words; type a turn")
        self.interrupt()
        self._withdraw()
        self._over = False
        self._listener.forget()
        self._onset = self.now
        self.log.add(self.now, "user_begins")
        self.log.add(self.now, "user_ends")
        self._prepare(UserTurn(None, None, text.strip()))
        self._user_end, self._due = self.now, self.now / self.rate

    def interrupt(self) -> None:
        """Stops the voice at once; what was not played leaves the context."""
        if self._reply is not None:
            self._stop(since=self.now)

    def close(self) -> None:
        """Ends the conversation and its worker."""
        self.worker.close()

    @property
    def audible(self) -> bool:
        """Whether a reply is being played, or held."""
        return self._reply is not None and self._reply.begun

    # ---- the user's changes ----

    def _hear_change(self, change: Heard) -> None:
        at, since = round(change.at * self.rate), round(change.since * self.rate)
        if change.change == "onset":
            self._begin_user(at, since)
        elif self._over:
            self._over_voice(change, at, since)
        elif change.change == "pause":
            self._prepare(self._user_turn(since))
        elif change.change == "resumed":
            self._drop_reply()
        elif change.change == "ended":
            self._end_user(at, since)

    def _begin_user(self, at: int, since: int) -> None:
        if self._question is not None:
            self._backchannel(at)
        if self._reply is not None and not self.audible and not self._typed:
            # The user speaks on before the answer: all of it is one turn.
            self._drop_reply()
            self.log.add(at, "user_begins", since=since)
            return
        self._onset = since
        if self.audible:
            self._over = True
            self._hold(at)
            return
        self._drop_reply(keep_user=True)
        self.log.add(at, "user_begins", since=since)

    def _over_voice(self, change: Heard, at: int, since: int) -> None:
        """Decides between a backchannel, which ends early, and an interruption."""
        if change.change == "long":
            self._interrupted(at)
        elif change.change == "pause" and not self.audible:
            # The voice ended meanwhile: these words have the floor.
            self._interrupted(at)
            self._prepare(self._user_turn(since))
        elif change.change == "pause":
            self._ask(at, since)
        elif change.change == "resumed":
            self._withdraw()
            self._hold(at)
        elif change.change == "ended" and self._question is not None:
            self._question.ended = True

    def _ask(self, at: int, since: int) -> None:
        """Has the words of short speech recognised, where they decide."""
        words = self._user_turn(since).words
        assert words is not None
        task = self.backchannels.classify(words)
        if task is None:
            self._backchannel(at)
            return
        self._question = Question(task, since, at + round(HELD_FOR_WORDS_S * self.rate))
        self.worker.begin(task, urgent=True)

    def _decide(self, found: ShortSpeech) -> None:
        """Takes the words of the short speech."""
        question = self._question
        assert question is not None
        if found.backchannel:
            self._backchannel(self.now, found.text)
            return
        self._question = None
        self._interrupted(self.now)
        self._prepare(self._user_turn(question.since))
        if question.ended:
            self._end_user(self.now, question.since)

    def _withdraw(self) -> None:
        """Drops the question for the words of short speech, if there is one."""
        if self._question is not None:
            self.worker.cancel(self._question.task)
            self._question = None

    def _backchannel(self, at: int, text: str = "") -> None:
        """Ends speech that was no turn; the voice speaks on."""
        if self._question is None or not self._question.ended:
            self._listener.forget()
        self._withdraw()
        self._over = False
        self.log.add(at, "backchannel", since=self._onset, text=text, source=self.backchannels.name)
        self._resume(at)

    def _interrupted(self, at: int) -> None:
        """Gives the floor to speech over the voice."""
        self._over = False
        self._stop(since=self._onset)
        self.log.add(at, "user_begins", since=self._onset)

    def _hold(self, at: int) -> None:
        """Pauses the voice while speech over it may be a turn."""
        if self.config.hold and self._reply is not None and not self._reply.held:
            self._reply.held = True
            self.log.add(at, "hold", since=self._onset)

    def _resume(self, at: int) -> None:
        if self._reply is not None and self._reply.held:
            self._reply.resume()
            self.log.add(at, "resume")

    def _end_user(self, at: int, since: int) -> None:
        self.log.add(at, "user_ends", since=since)
        self._user_end = since
        draw = float(torch.randn((), generator=self._generator))
        gap = self.config.gap * math.exp(self.config.gap_spread * draw)
        self._due = since / self.rate + gap

    def _user_turn(self, end: int) -> UserTurn:
        return UserTurn(*self._user.between(self._onset, end))

    # ---- the reply ----

    def _play(self, reply: Playout, count: int) -> Tensor:
        reply.released = reply.released or self.now / self.rate >= self._due
        begun, underruns, before = reply.begun, reply.underruns, sum(reply.played)
        audio = reply.play(count)
        if reply.begun and not begun:
            self._reply_begin = self.now
            self.log.add(self.now, "voice_begins")
            self._log_words()
        if reply.underruns > underruns:
            self.log.add(self.now, "underrun")
        if sum(reply.played) > before:
            self._last_voice = self.now + count
        return audio

    def _log_words(self) -> None:
        """Enters the user's turn, once its reply is certain."""
        words, self._words = self._words, None
        if words is not None:
            self.turns.append(TranscriptTurn(True, self._onset, self._user_end, words.text))
            self.log.add(self.now, "heard", since=self._onset, text=words.text, source=words.recogniser)

    def _prepare(self, user: UserTurn) -> None:
        self._drop_reply()
        self._reply = Playout(round(self.config.jitter * self.rate), round(FADE_S * self.rate))
        self._due, self._words, self._typed = math.inf, None, bool(user.text)
        self._task = self._answer(user)
        self.worker.begin(self._task)

    def _answer(self, user: UserTurn) -> Task:
        """Classifies the pause, which the end of the turn waits for, and then makes the reply."""
        if user.words is not None:
            yield from self.turn_end.classify(user.words)
        yield from self.speaker.reply(user)

    def _collect(self) -> None:
        """Takes what has been computed."""
        room = self._reply is None or self._reply.waiting < self.config.ahead * self.rate
        found: ShortSpeech | None = None
        for product in self.worker.run(self.now / self.rate, room):
            if isinstance(product, PlayedWords):
                if product.text:
                    turn = TranscriptTurn(False, self._reply_begin, self._last_voice, product.text)
                    self.turns.append(turn)
                    self.log.add(self.now, "said", since=self._reply_begin, text=product.text)
            elif isinstance(product, Patience):
                self._listener.wait(product.silence)
                self.log.add(self.now, "pause", text=product.reason, source=self.turn_end.name)
            elif isinstance(product, ShortSpeech):
                found = product
            elif isinstance(product, Words):
                self._words = product
            elif self._reply is not None and isinstance(product, Chunk):
                self._reply.add(product)
            elif self._reply is not None and isinstance(product, ReplyEnd):
                self._reply.whole = True
                if product.failure:
                    self.log.add(self.now, "failed", text=product.failure)
        # An interruption begins another reply: the audio that was ready before belongs to this one.
        if found is not None:
            self._decide(found)
        elif self._question is not None and self.now >= self._question.deadline:
            self._resume(self.now)

    def _drop_reply(self, *, keep_user: bool = False) -> None:
        """Drops a reply before its first sample; without `keep_user` the user's turn lasts on."""
        if self._reply is not None:
            self._cancel()
            if keep_user:
                self._log_words()
            self.worker.begin(self.speaker.settle([], keep_user=keep_user))

    def _stop(self, since: int) -> None:
        """Stops an audible reply."""
        if self._reply is not None and not self._reply.begun:
            self._drop_reply(keep_user=True)
        elif self._reply is not None:
            self.log.add(self.now, "barge_in", since=since)
            self._end_reply()

    def _end_reply(self) -> None:
        reply = self._cancel()
        if reply.begun:
            self.log.add(self.now, "voice_ends", since=self._last_voice)
        self._log_words()
        self.worker.begin(self.speaker.settle(self._heard_of(reply), reply.skipped))

    def _cancel(self) -> Playout:
        """Ends the reply and its task, if that is not over."""
        reply, task = self._reply, self._task
        assert reply is not None and task is not None
        self._reply = self._task = None
        self.worker.cancel(task)
        return reply

    def _heard_of(self, reply: Playout) -> list[int]:
        """Samples of each clause that have reached the user."""
        played = list(reply.played)
        late = 0 if reply.over else round(self.config.playout_delay * self.rate)
        for clause in reversed(range(len(played))):
            part = min(late, played[clause])
            played[clause], late = played[clause] - part, late - part
        return played
