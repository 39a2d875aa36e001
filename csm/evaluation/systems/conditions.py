"""Conditions of held-out clips: as recorded, through classical codecs, from a tokenizer's codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.evaluation.core.clips import EVALUATION_RATE, Clip, prepared
from csm.evaluation.core.draws import held_out_speakers
from csm.evaluation.metrics.text_normalisation import normalise_text
from csm.evaluation.systems.classical_codecs import Anchor
from csm.evaluation.systems.delay import common_delay, without_delay
from csm.system.files import hash_key
from csm.tokenizer.opening import VoiceTokenizer

SHORTEST = 1.5  # seconds; below it STOI lacks speech and a speaker embedding is weak


@dataclass(frozen=True, kw_only=True)
class Condition:
    """All clips in one condition.

    Attributes:
        name: Name in the report. title: Name for readers.
        clips: Clips at 16 kHz, aligned in time with the recordings; empty where `missing` says why.
        kbits: Bit rate in kilobits per second, None for the recording. bits: How it was measured.
        delay: Delay of the codec in seconds, which is removed.
        codebooks: Number of codebooks that were decoded, 0 without a tokenizer.
        missing: Why the condition is not available here; empty where it is.
    """

    name: str
    title: str
    clips: tuple[Clip, ...]
    kbits: float | None = None
    bits: str = ""
    delay: float = 0.0
    codebooks: int = 0
    missing: str = ""


def held_out_clips(
    corpus: Corpus, count: int, *, seed: int = 0, speakers: Sequence[str] = ()
) -> tuple[list[Turn], str]:
    """Draws turns evenly over the conversations; returns them and a description of where they come from.

    They last `SHORTEST` seconds or more and have words in their text. The draw is by a hash of seed and id:
    one turn
    of every conversation, then a second one of each, and so on. The recipe of a training decides whether it
    left these speakers out.

    Args:
        corpus: Corpus with the recordings.
        count: Most turns.
        seed: Seed of the draw.
        speakers: Speakers whose turns of all splits are drawn from; empty for those that the corpus names as
            held out, and for the test split where it names none.

    Raises:
        ValueError: There is no such turn.
    """
    speakers = speakers or held_out_speakers(corpus)
    pool: Sequence[Turn]
    if speakers:
        pool = [turn for turn in corpus.turns() if turn.speaker in speakers]
        origin = f"turns of the held-out speakers {', '.join(speakers)}"
    else:
        pool, origin = corpus.turns("test"), "turns of the test split"
    ranked: dict[str, list[Turn]] = {}
    for turn in sorted(pool, key=lambda turn: hash_key(turn.id, seed)):
        if turn.duration >= SHORTEST and normalise_text(turn.text):
            ranked.setdefault(turn.conversation, []).append(turn)
    if not ranked:
        raise ValueError(
            f"{corpus.root} has no {origin} that last {SHORTEST} s or more and have a text: name other "
            f"--speakers or a corpus with such turns"
        )
    order = sorted(ranked, key=lambda conversation: hash_key(conversation, seed))
    rounds = range(max(map(len, ranked.values())))
    drawn = [ranked[name][place] for place in rounds for name in order if place < len(ranked[name])]
    return drawn[:count], origin


def recordings(corpus: Corpus, turns: Sequence[Turn]) -> Condition:
    """Reads the clips as recorded; one that cannot be read carries the reason."""
    clips = []
    for turn in turns:
        clip = Clip(
            id=turn.id,
            conversation=turn.conversation,
            speaker=turn.speaker,
            text=turn.text,
            turn=turn.index,
        )
        try:
            clips.append(replace(clip, waveform=read_turn(corpus, turn, EVALUATION_RATE)[0].numpy()))
        except ValueError as error:
            clips.append(replace(clip, reason=str(error)))
    return Condition(name="original", title="Original", clips=tuple(clips))


def by_anchor(anchor: Anchor, original: Condition) -> Condition:
    """Passes the clips through a classical codec; a clip that its command refuses carries the reason."""
    condition = Condition(name=anchor.name, title=anchor.title, clips=(), kbits=anchor.kbits, bits="nominal")
    if anchor.missing:
        return replace(condition, missing=anchor.missing)
    clips, bits, seconds = [], 0, 0.0
    for clip in original.clips:
        if clip.waveform is None:
            clips.append(clip)
            continue
        try:
            coded = anchor.code(clip.waveform)
        except ValueError as error:
            clips.append(replace(clip, waveform=None, reason=str(error)))
            continue
        clips.append(replace(clip, waveform=coded.waveform))
        if coded.bits is not None:
            bits, seconds = bits + coded.bits, seconds + clip.duration
    if seconds:
        condition = replace(condition, kbits=bits / seconds / 1000, bits="measured, without container")
    return _aligned(replace(condition, clips=tuple(clips)), original)


@torch.no_grad()
def by_codebooks(
    tokenizer: VoiceTokenizer,
    corpus: Corpus,
    turns: Sequence[Turn],
    codebooks: Sequence[int],
    original: Condition,
    *,
    conditioned: bool = False,
) -> tuple[list[Condition], torch.Tensor]:
    """Resynthesises the clips from each number of first codebooks.

    Args:
        tokenizer: Tokenizer in eval mode, on the CPU.
        corpus, turns: Source of `original`, read again at the tokenizer's rate.
        codebooks: Numbers of first codebooks.
        original: The clips as recorded.
        conditioned: Whether the decoder is given each clip's own speaker and emotion embedding. A speaker of
            whom only the codes exist has none, so they are withheld by default.

    Returns:
        A condition for each number, and the codes of all clips one after the other, int64 [1, K, T].

    Raises:
        ValueError: None of the clips can be read.
    """
    config = tokenizer.config
    decoded: dict[int, list[Clip]] = {count: [] for count in codebooks}
    codes = []
    for turn, clip in zip(turns, original.clips, strict=True):
        if clip.waveform is None:
            for clips in decoded.values():
                clips.append(clip)
            continue
        audio = read_turn(corpus, turn, config.sample_rate)
        found, info = tokenizer.encode(audio.unsqueeze(0))
        codes.append(found)
        speaker, emotion = (info.speaker, info.emotion) if conditioned else (None, None)
        for count, clips in decoded.items():
            sound = tokenizer.decode(found[:, :count], speaker=speaker, emotion=emotion)
            waveform = sound[0, 0, : audio.shape[-1]].numpy()
            clips.append(replace(clip, waveform=waveform, sample_rate=config.sample_rate))
    if not codes:
        raise ValueError(f"none of the {len(turns)} clips of {corpus.root} can be read; prepare it again")
    rate = config.frame_rate * float(np.log2(config.codebook_size)) / 1000
    conditions = [
        Condition(
            name=f"codebooks_{count}",
            title=f"{count} codebooks" if count > 1 else "1 codebook",
            clips=tuple(clips),
            kbits=count * rate,
            bits="nominal: codebooks x frames a second x log2 of their size",
            codebooks=count,
        )
        for count, clips in decoded.items()
    ]
    return [_aligned(condition, original) for condition in conditions], torch.cat(codes, dim=-1)


def _aligned(condition: Condition, original: Condition) -> Condition:
    """Converts the condition to the evaluators' rate, removes its delay and cuts it to the recording's
    length.

    Codec2 has a delay of 18 ms. STOI and the mel distance compare frames of 10 to 25 ms one by one, so
    without this
    they would measure the delay and not the speech. Tokenizers are treated alike, and the report states the
    delay that was removed.
    """
    clips = [prepared(clip) for clip in condition.clips]
    pairs = [
        (recorded.waveform, clip.waveform)
        for recorded, clip in zip(original.clips, clips, strict=True)
        if recorded.waveform is not None and clip.waveform is not None
    ]
    delay = common_delay(pairs, EVALUATION_RATE)
    moved = [
        clip
        if clip.waveform is None or recorded.waveform is None
        else replace(clip, waveform=without_delay(clip.waveform, delay, len(recorded.waveform)))
        for recorded, clip in zip(original.clips, clips, strict=True)
    ]
    return replace(condition, clips=tuple(moved), delay=delay / EVALUATION_RATE)
