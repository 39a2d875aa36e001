"""The voice's side of a conversation: a model's session, its turns and the user's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from csm.conversation.clauses import clauses
from csm.conversation.repliers import Replier, SaidTurn
from csm.conversation.transcriber import Transcriber
from csm.conversation.worker import Task
from csm.generation.audio_stream import SpeechStream
from csm.generation.prompt_turn import PromptTurn, encoded_prompt
from csm.generation.talker import Talker
from csm.sequences.turns import TurnFrames
from csm.system.threads import one_thread
from csm.text import TextCodec

# Keeps the seeds of two conversations so far apart that their replies share none.
SEEDS_APART = 100_000


class UserTurn(NamedTuple):
    """What the user said or typed.

    Attributes:
        voice: float32 [S] at the tokenizer's rate; None for a typed turn.
        words: float32 [S] at 16 kHz, what is transcribed.
        text: Text of a typed turn.
    """

    voice: Tensor | None
    words: Tensor | None
    text: str = ""


class Chunk(NamedTuple):
    """Audio of a reply: clause from 0, and float32 [S]."""

    clause: int
    samples: Tensor


class Words(NamedTuple):
    """Words of the user's turn, and what recognised them."""

    text: str
    recogniser: str


class ReplyEnd(NamedTuple):
    """The reply is whole; `failure` is why it has no more words, "" where it has all."""

    failure: str = ""


class PlayedWords(NamedTuple):
    """Words of a reply as far as they were played."""

    text: str


class Speaker:
    """Owns the session: all its methods that return tasks run on one worker, one after the other.

    The random numbers of a reply follow from the seed and the number of turns that were kept before it.

    Args:
        talker: Model, tokenizer and voices; may be shared, its tokenizer's weights too.
        replier: Source of words.
        transcriber: Recogniser of the user's words.
        voice: Name of the voice; None is the main one.
        seed: Of the session; None takes the talker's.
    """

    def __init__(
        self,
        talker: Talker,
        replier: Replier,
        transcriber: Transcriber,
        voice: str | None = None,
        seed: int | None = None,
    ) -> None:
        self.voice = talker.voice(voice)
        self.talker, self.replier, self.transcriber = talker, replier, transcriber
        self.session = talker.session(seed)
        self._seed = self.session.sampling.seed
        self.turns: list[SaidTurn] = []
        self._decoder, self._encoder = (talker.tokenizer.with_own_state() for _ in range(2))
        self._heard: str | None = None
        self._listened = self._clauses = 0

    def reply(self, user: UserTurn) -> Task:
        """Encodes the user's turn and speaks a reply; yields Words, Chunks and ReplyEnd."""
        self._listened = self._clauses = 0
        self._heard = user.text or (self.transcriber(user.words) if user.words is not None else "")
        yield Words(self._heard, "typed" if user.text else self.transcriber.name)
        if not self._heard:
            yield ReplyEnd("no words were recognised")
            return
        if user.voice is not None:
            with one_thread():
                turn = PromptTurn(self._heard, user.voice[None], self.talker.tokenizer.config.sample_rate)
                config = self.talker.model.config
                # The first local number is that of a prompted voice.
                spare = config.local_numbers[1:]
                voices, count = self.talker.voices, config.num_codebooks
                frames, _ = encoded_prompt(turn, self._encoder, voices, count, spare, beside=self.voice)
                self.session.listen(frames)
            self._listened = 1
            yield None
        said = [*self.turns, SaidTurn(True, self._heard)]
        # How far a withdrawn reply was synthesised depends on the machine's speed: what is said does not.
        self.session.generator.manual_seed(SEEDS_APART * self._seed + len(self.turns))
        try:
            yield from self._speak(clauses(self.replier.reply(said)))
        except ValueError as error:
            yield ReplyEnd(str(error))
            return
        yield ReplyEnd()

    def settle(self, played: Sequence[int], skipped: int = 0, *, keep_user: bool = True) -> Task:
        """Cuts the context to what was played; yields the words of it as PlayedWords.

        Args:
            played: Samples of each clause that were played.
            skipped: Of these, silence before the first sound that was not.
            keep_user: Whether the user's turn stays; without it the user spoke on.
        """
        size = self.talker.tokenizer.config.samples_per_frame
        frames = [round(samples / size) for samples in [*played, *[0] * self._clauses][: self._clauses]]
        if not keep_user:
            self.session.take_back(self._clauses + self._listened)
            self._listened = self._clauses = 0
            yield None
            return
        with one_thread():
            text = self._keep(frames, round(skipped / size))
        if self._heard is not None:
            self.turns.append(SaidTurn(True, self._heard))
        if text:
            self.turns.append(SaidTurn(False, text))
        self._heard, self._listened, self._clauses = None, 0, 0
        yield PlayedWords(text)

    def _speak(self, texts: Iterator[str]) -> Iterator[Chunk]:
        for number, text in enumerate(texts):
            stream = SpeechStream(self._decoder, self.session, self.voice, [text], shared=self.talker.shared)
            try:
                for chunk in stream:
                    self._clauses = number + 1
                    yield Chunk(number, chunk[0])
            finally:
                stream.close()

    def _keep(self, frames: Sequence[int], skipped: int) -> str:
        """Keeps the first `frames` frames of each clause, without the `skipped` first ones of all.

        Returns:
            Their words.
        """
        turns = [context.turn for context in self.session.turns[len(self.session.turns) - len(frames) :]]
        whole = 0
        while whole < len(turns) and frames[whole] >= turns[whole].codes.shape[1]:
            whole += 1
        kept = turns[:whole]
        if whole < len(turns) and frames[whole]:
            kept.append(heard_part(turns[whole], frames[whole], self.talker.model.codec))
        same = 0 if skipped else whole
        if kept and skipped:
            codes = kept[0].codes
            kept[0] = kept[0]._replace(codes=codes[:, min(skipped, codes.shape[1] - 1) :].clone(), ends=None)
        self.session.take_back(len(turns) - same)
        for turn in kept[same:]:
            self.session.listen(turn)
        return " ".join(turn.text for turn in kept)


def heard_part(turn: TurnFrames, frames: int, codec: TextCodec) -> TurnFrames:
    """Returns the first frames of a spoken turn with the words that end in them; the first word stays always.

    Args:
        turn: Turn with more frames.
        frames: Frames that were played, at least 1.
        codec: Codec of the turn's text.
    """
    words = turn.text.split()
    ends = _ends(turn, codec)
    count = 1
    while count < len(words):
        if ends[_last_id(words[: count + 1], turn.speaker, codec, len(ends))] > frames:
            break
        count += 1
    text = " ".join(words[:count])
    return TurnFrames(turn.id, text, turn.speaker, turn.codes[:, :frames].clone())


def _ends(turn: TurnFrames, codec: TextCodec) -> Float[Tensor, " L"]:
    """Frame at which each id of the text ends; evenly spaced where that is unknown."""
    if turn.ends is not None:
        return turn.ends
    count = len(codec.encode_turn(turn.text, turn.speaker))
    return torch.linspace(0, turn.codes.shape[1], count + 1)[1:]


def _last_id(words: Sequence[str], speaker: int, codec: TextCodec, limit: int) -> int:
    """Index of the last id of these first words of a text, without the end id."""
    return min(len(codec.encode_turn(" ".join(words), speaker)) - 2, limit - 1)
