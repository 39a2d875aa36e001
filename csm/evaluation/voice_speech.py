"""Speaks the lines that a voice is judged by, each in every version, timed where its audio comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.evaluation.material import hardware
from csm.evaluation.voice_ablations import Part, without_part
from csm.evaluation.voice_folder import SpokenLines
from csm.evaluation.voice_lines import MAIN, ChosenLines, Line
from csm.generation.audio_stream import SpeechStream
from csm.generation.depth_sampler import DepthSampler
from csm.generation.prompt_turn import PromptTurn
from csm.generation.session import Session
from csm.generation.talker import Talker
from csm.system.threads import one_thread

GENERATED, IN_CONTEXT, MEMORY_OFF = "generated", "in_context", "in_context_memory_off"
CROSS_OFF, SEMANTIC, INT8 = "cross_attention_off", "semantic_codebooks", "int8"
# Sets the seeds of two evaluations so far apart that no line of one has a seed of the other.
SEEDS_APART = 100_000


class Said(NamedTuple):
    """A line as it was spoken.

    Attributes:
        waveform: [1, S]. stream: Its codes and voice, and the session that keeps it.
        facts: "timing"; "cut_off", whether a sentence ran into its limit; "remembered", how many earlier
            turns were in the memory; "hardware".
    """

    waveform: Tensor
    stream: SpeechStream
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Speaker:
    """A talker at work on lines of a corpus.

    Attributes:
        talker, corpus: Who speaks, and whose lines.
        seed: Of the evaluation; the seed of a line is this and its number.
        drawer: Shared by all sessions, so that rounded weights are made once and not in each timed line.
    """

    talker: Talker
    corpus: Corpus
    seed: int
    drawer: DepthSampler

    @classmethod
    def of(cls, talker: Talker, corpus: Corpus, seed: int) -> Speaker:
        """With a drawer for the talker's weights."""
        return cls(talker=talker, corpus=corpus, seed=seed, drawer=DepthSampler(talker.model, talker.weights))

    def session(self, line: Line) -> Session:
        """A new conversation whose draws follow from the line's number."""
        sampling = replace(self.talker.sampling, seed=SEEDS_APART * self.seed + line.number)
        return Session(self.talker.model, sampling, sampler=self.drawer)

    def say(self, line: Line, session: Session | None = None, *, context: Sequence[Turn] = ()) -> Said:
        """Speaks a line.

        Args:
            line: With a prompt, in the voice of its recordings; else in the speaker's voice.
            session: To go on with; None begins a new one, before the clock starts.
            context: Turns that were said before, oldest first; those without a text are passed over.

        Raises:
            ValueError: It cannot be said, or a recording of its prompt or context cannot be read.
        """
        session = session or self.session(line)
        prompt = self._joined(line.prompt) if line.prompt else None
        heard = [self._heard(turn) for turn in context if turn.text.strip()]
        name = None if prompt else line.turn.speaker
        stream = self.talker.generate(
            line.turn.text, name, prompt=prompt, context=heard, session=session, stream=True
        )
        speech = stream.whole()
        remembered = 0 if session.memory is None else int(session.memory.turns)
        facts = {
            "timing": speech.timing._asdict(),
            "cut_off": "limit" in speech.endings,
            "remembered": remembered,
        }
        facts["hardware"] = hardware().removesuffix(", one thread a judge")
        return Said(speech.waveform, stream, facts)

    def _heard(self, turn: Turn) -> PromptTurn:
        rate = self.talker.tokenizer.config.sample_rate
        known = turn.speaker if turn.speaker in self.talker.voices else None
        return PromptTurn(turn.text, read_turn(self.corpus, turn, rate), rate, known)

    def _joined(self, turns: Sequence[Turn]) -> PromptTurn:
        parts = [self._heard(turn) for turn in turns]
        waveform = torch.cat([part.waveform for part in parts], dim=1)
        return PromptTurn(" ".join(part.text.strip() for part in parts), waveform, parts[0].sample_rate)


def versions_of(talker: Talker, *, ablations: bool, int8: bool) -> tuple[dict[str, Talker], list[str]]:
    """The talkers that the main voice's lines are spoken by, beside "generated", and what cannot be had.

    Args:
        talker: The one that is judged.
        ablations: Also in context, and with parts switched off.
        int8: Also with rounded weights.
    """
    talkers: dict[str, Talker] = {}
    absent = []
    if ablations:
        talkers[IN_CONTEXT] = talker
        parts: tuple[tuple[str, Part], ...] = ((MEMORY_OFF, "memory"), (CROSS_OFF, "cross-attention"))
        for version, part in parts:
            try:
                talkers[version] = without_part(talker, part)
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
    speaker: Speaker,
    chosen: ChosenLines,
    others: dict[str, Talker],
    kept: SpokenLines,
    done: Callable[[], Any],
) -> None:
    """Speaks what is not kept yet, in a fixed order; whatever cannot be said is kept with the reason.

    Args:
        speaker: Of the talker that is judged.
        chosen: What is spoken.
        others: Further versions of the main voice's lines; see `versions_of`.
        kept: Where everything goes.
        done: Called after each line in each version, also one that was there.
    """
    _speak_lines(speaker, [line for lines in chosen.groups.values() for line in lines], GENERATED, kept, done)
    for version, talker in others.items():
        _speak_lines(Speaker.of(talker, speaker.corpus, speaker.seed), chosen.main, version, kept, done)
    # Turns of one session: where one is missing, all are spoken again.
    missing = any(not kept.has(line, GENERATED) for line in chosen.conversation)
    session = speaker.session(chosen.conversation[0]) if missing else None
    for line in chosen.conversation:
        if session is not None:
            _speak(speaker, line, GENERATED, kept, session=session)
        done()


def _speak_lines(
    speaker: Speaker, lines: Sequence[Line], version: str, kept: SpokenLines, done: Callable[[], Any]
) -> None:
    warm = False
    for line in lines:
        if not kept.has(line, version):
            if not warm:
                _warm_up(speaker, line)
                warm = True
            _speak(speaker, line, version, kept)
        done()


def _warm_up(speaker: Speaker, line: Line) -> None:
    """Speaks a line that nobody hears: the first one of a process waits for what the others find ready."""
    try:
        speaker.say(line)
    except ValueError:
        pass  # it will be kept with its reason


def _speak(
    speaker: Speaker, line: Line, version: str, kept: SpokenLines, *, session: Session | None = None
) -> None:
    rate = speaker.talker.tokenizer.config.sample_rate
    in_context = version in (IN_CONTEXT, MEMORY_OFF)
    context = turns_before(speaker.corpus, line.turn) if in_context else ()
    said: Said | None = None
    facts: dict[str, Any]
    try:
        said = speaker.say(line, session, context=context)
        facts = said.facts
    except ValueError as error:
        facts = {"reason": " ".join(str(error).split())}
    if version == GENERATED and line.group == MAIN:
        part = None if said is None else semantic_part(speaker.talker, said)
        kept.keep(line, SEMANTIC, part, rate, facts)
    kept.keep(line, version, None if said is None else said.waveform, rate, facts)


def turns_before(corpus: Corpus, turn: Turn) -> Sequence[Turn]:
    """The turns of a turn's conversation that precede it."""
    conversation = next(one for one in corpus.conversations if one.id == turn.conversation)
    return conversation.turns[: turn.index]


@torch.no_grad()
def semantic_part(talker: Talker, said: Said) -> Tensor:
    """A spoken line [1, S] from its semantic codebooks alone, in the same voice."""
    device = talker.tokenizer.decoder.embed.weight.device
    codes = said.stream.codes[None, : talker.model.config.semantic_codebooks].to(device)
    voice = said.stream.voice
    with one_thread():
        sound = talker.tokenizer.decode(
            codes, speaker=voice.speaker, emotion=voice.emotion, contrast=talker.sampling.contrast
        )
        return sound[0].cpu()
