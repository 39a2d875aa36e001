"""Speaks the lines of a voice in every condition, timed on the stream of audio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.evaluation.core.evaluators import hardware
from csm.evaluation.subjects.voice_folder import GeneratedSpeech
from csm.evaluation.subjects.voice_lines import MAIN, ChosenLines, Line
from csm.evaluation.systems.ablations import Part, without_part
from csm.generation.audio_stream import SpeechStream
from csm.generation.depth_sampler import DepthSampler
from csm.generation.prompt_turn import PromptTurn
from csm.generation.session import Session
from csm.generation.talker import Talker
from csm.system.threads import one_thread

GENERATED, IN_CONTEXT, MEMORY_OFF = "generated", "in_context", "in_context_memory_off"
CROSS_OFF, SEMANTIC, INT8 = "cross_attention_off", "semantic_codebooks", "int8"
# Keeps the seeds of two evaluations so far apart that their lines share none.
SEEDS_APART = 100_000


class SpokenLine(NamedTuple):
    """A line as it was spoken.

    Attributes:
        waveform: Speech [1, S]. stream: Its codes and voice, and its session.
        facts: "timing"; "cut_off", whether a sentence reached its limit of frames; "remembered", the number
            of earlier
            turns in the memory; "hardware".
    """

    waveform: Tensor
    stream: SpeechStream
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class LineSpeaker:
    """A talker that speaks lines of a corpus.

    Attributes:
        talker, corpus: The talker, and the corpus of the lines.
        seed: Seed of the evaluation; the seed of a line follows from it and from the line's number.
        sampler: Depth sampler, shared by all sessions, so that int8 weights are made once and not in each
            timed line.
    """

    talker: Talker
    corpus: Corpus
    seed: int
    sampler: DepthSampler

    @classmethod
    def of(cls, talker: Talker, corpus: Corpus, seed: int) -> LineSpeaker:
        """Makes a speaker with a depth sampler for the talker's weights."""
        sampler = DepthSampler(talker.model, talker.weights)
        return cls(talker=talker, corpus=corpus, seed=seed, sampler=sampler)

    def session(self, line: Line) -> Session:
        """Begins a conversation whose seed follows from the line's number."""
        sampling = replace(self.talker.sampling, seed=SEEDS_APART * self.seed + line.number)
        return Session(self.talker.model, sampling, sampler=self.sampler)

    def say(self, line: Line, session: Session | None = None, *, context: Sequence[Turn] = ()) -> SpokenLine:
        """Speaks a line.

        Args:
            line: Line; with a prompt it is spoken in the voice of its recordings, else in the speaker's
                voice.
            session: Session to continue; None begins a new one, before the clock starts.
            context: Preceding turns, oldest first; those without a text are left out.

        Raises:
            ValueError: The line cannot be spoken, or a recording of its prompt or context cannot be read.
        """
        session = session or self.session(line)
        prompt = self._joined(line.prompt) if line.prompt else None
        preceding = [self._prompt_turn(turn) for turn in context if turn.text.strip()]
        name = None if prompt else line.turn.speaker
        stream = self.talker.generate(
            line.turn.text, name, prompt=prompt, context=preceding, session=session, stream=True
        )
        speech = stream.whole()
        remembered = 0 if session.memory is None else int(session.memory.turns)
        facts = {
            "timing": speech.timing._asdict(),
            "cut_off": "limit" in speech.endings,
            "remembered": remembered,
            "hardware": hardware(),
        }
        return SpokenLine(speech.waveform, stream, facts)

    def _prompt_turn(self, turn: Turn) -> PromptTurn:
        rate = self.talker.tokenizer.config.sample_rate
        known = turn.speaker if turn.speaker in self.talker.voices else None
        return PromptTurn(turn.text, read_turn(self.corpus, turn, rate), rate, known)

    def _joined(self, turns: Sequence[Turn]) -> PromptTurn:
        parts = [self._prompt_turn(turn) for turn in turns]
        waveform = torch.cat([part.waveform for part in parts], dim=1)
        return PromptTurn(" ".join(part.text.strip() for part in parts), waveform, parts[0].sample_rate)


def conditions_of(talker: Talker, *, ablations: bool, int8: bool) -> tuple[dict[str, Talker], list[str]]:
    """Makes the talkers of the main voice's further conditions; returns them and what is not available.

    Args:
        talker: The talker that is evaluated.
        ablations: Whether to speak in context, and with parts switched off.
        int8: Whether to speak with int8 weights.
    """
    talkers: dict[str, Talker] = {}
    absent = []
    if ablations:
        talkers[IN_CONTEXT] = talker
        parts: tuple[tuple[str, Part], ...] = ((MEMORY_OFF, "memory"), (CROSS_OFF, "cross-attention"))
        for condition, part in parts:
            try:
                talkers[condition] = without_part(talker, part)
            except ValueError as error:
                absent.append(f"{part} off: {error}")
    if int8:
        try:
            rounded = replace(talker, weights="int8")
        except ValueError as error:
            absent.append(f"int8 weights: {error}")
        else:
            if DepthSampler(rounded.model).is_native():
                talkers[INT8] = rounded
            else:
                absent.append("int8 weights need the compiled kernels of csm_kernels: install the package")
    return talkers, absent


def speak_all(
    speaker: LineSpeaker,
    chosen: ChosenLines,
    others: dict[str, Talker],
    kept: GeneratedSpeech,
    done: Callable[[], Any],
) -> None:
    """Speaks what is not in the folder yet, in a fixed order; a line that cannot be spoken leaves its reason.

    Args:
        speaker: Speaker of the talker that is evaluated.
        chosen: Lines to speak.
        others: Further conditions of the main voice's lines; see `conditions_of`.
        kept: Folder of the speech.
        done: Called after each line in each condition, also one that was there.
    """
    _speak_lines(speaker, [line for lines in chosen.groups.values() for line in lines], GENERATED, kept, done)
    for condition, talker in others.items():
        _speak_lines(LineSpeaker.of(talker, speaker.corpus, speaker.seed), chosen.main, condition, kept, done)
    # Turns of one session: where one is missing, all are spoken again.
    missing = any(not kept.has(line, GENERATED) for line in chosen.conversation)
    session = speaker.session(chosen.conversation[0]) if missing else None
    for line in chosen.conversation:
        if session is not None:
            _speak(speaker, line, GENERATED, kept, session=session)
        done()


def _speak_lines(
    speaker: LineSpeaker,
    lines: Sequence[Line],
    condition: str,
    kept: GeneratedSpeech,
    done: Callable[[], Any],
) -> None:
    warm = False
    for line in lines:
        if not kept.has(line, condition):
            if not warm:
                _warm_up(speaker, line)
                warm = True
            _speak(speaker, line, condition, kept)
        done()


def _warm_up(speaker: LineSpeaker, line: Line) -> None:
    """Speaks a line without keeping it: the first line of a process includes lazy initialisation."""
    try:
        speaker.say(line)
    except ValueError:
        pass  # the line will be kept with its reason


def _speak(
    speaker: LineSpeaker, line: Line, condition: str, kept: GeneratedSpeech, *, session: Session | None = None
) -> None:
    rate = speaker.talker.tokenizer.config.sample_rate
    in_context = condition in (IN_CONTEXT, MEMORY_OFF)
    context = turns_before(speaker.corpus, line.turn) if in_context else ()
    said: SpokenLine | None = None
    facts: dict[str, Any]
    try:
        said = speaker.say(line, session, context=context)
        facts = said.facts
    except ValueError as error:
        facts = {"reason": " ".join(str(error).split())}
    if condition == GENERATED and line.group == MAIN:
        part = None if said is None else semantic_part(speaker.talker, said)
        kept.keep(line, SEMANTIC, part, rate, facts)
    kept.keep(line, condition, None if said is None else said.waveform, rate, facts)


def turns_before(corpus: Corpus, turn: Turn) -> Sequence[Turn]:
    """Returns the turns of a turn's conversation that precede it."""
    conversation = next(one for one in corpus.conversations if one.id == turn.conversation)
    return conversation.turns[: turn.index]


@torch.no_grad()
def semantic_part(talker: Talker, said: SpokenLine) -> Tensor:
    """Decodes a spoken line [1, S] from its semantic codebooks alone, in the same voice."""
    device = talker.tokenizer.device
    codes = said.stream.codes[None, : talker.model.config.semantic_codebooks].to(device)
    voice = said.stream.voice
    with one_thread():
        sound = talker.tokenizer.decode(
            codes, speaker=voice.speaker, emotion=voice.emotion, contrast=talker.sampling.contrast
        )
        return sound[0].cpu()
