"""The versions of held-out clips that are judged: as recorded, by classical codecs, from the codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from csm.data.corpora.amazon_queen import HELD_OUT_SPEAKERS
from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.evaluation.classical_codecs import Anchor
from csm.evaluation.delay import common_delay, without_delay
from csm.evaluation.judge import JUDGE_SAMPLE_RATE, Clip, prepared
from csm.evaluation.text_normalisation import normalise_text
from csm.system.files import hash_key
from csm.tokenizer.conversational_rvq import ConversationalRVQ

SHORTEST = 1.5  # seconds; below it STOI has little speech to judge and a speaker embedding is weak


@dataclass(frozen=True, kw_only=True)
class Version:
    """All clips in one version.

    Attributes:
        name: In the report, where it is called a condition. title: For people.
        clips: At 16 kHz and in step with the recordings; empty where `missing` says why there are none.
        kbits: Kilobits a second, None for the recording; `bits` says how they were had.
        delay: Seconds that were taken off because the codec is late.
        codebooks: How many were decoded; 0 where no tokenizer was at work.
        missing: Why the version cannot be had here.
    """

    name: str
    title: str
    clips: tuple[Clip, ...]
    kbits: float | None = None
    bits: str = ""
    delay: float = 0.0
    codebooks: int = 0
    missing: str = ""


def held_out_clips(corpus: Corpus, count: int, *, seed: int = 0) -> tuple[list[Turn], str]:
    """Turns to judge by, drawn evenly over the conversations, and where they come from.

    Those of the six held-out speakers of Amazon Queen where the corpus has all of them, else of the test
    split; `SHORTEST` seconds or more, with words in their text. That a training left these speakers out is
    for its recipe to see to. The draw is by a hash of seed and id: one
    turn of every conversation, then a second one of each, and so on.

    Raises:
        ValueError: There is no such turn.
    """
    if set(HELD_OUT_SPEAKERS) <= set(corpus.speakers()):
        pool = [turn for turn in corpus.turns() if turn.speaker in HELD_OUT_SPEAKERS]
        origin = f"turns of the held-out speakers {', '.join(HELD_OUT_SPEAKERS)}"
    else:
        pool, origin = list(corpus.turns("test")), "turns of the test split"
    ranked: dict[str, list[Turn]] = {}
    for turn in sorted(pool, key=lambda turn: hash_key(turn.id, seed)):
        if turn.duration >= SHORTEST and normalise_text(turn.text):
            ranked.setdefault(turn.conversation, []).append(turn)
    if not ranked:
        raise ValueError(
            f"{corpus.root} has no {origin} that last {SHORTEST} s or more and have a text; name a corpus "
            f"with such turns, for example data/amazon_queen"
        )
    order = sorted(ranked, key=lambda conversation: hash_key(conversation, seed))
    rounds = range(max(map(len, ranked.values())))
    drawn = [ranked[name][place] for place in rounds for name in order if place < len(ranked[name])]
    return drawn[:count], origin


def recordings(corpus: Corpus, turns: Sequence[Turn]) -> Version:
    """The clips as recorded; one that cannot be read carries the reason."""
    clips = []
    for turn in turns:
        clip = Clip(id=turn.id, conversation=turn.conversation, speaker=turn.speaker, text=turn.text)
        try:
            clips.append(replace(clip, waveform=read_turn(corpus, turn, JUDGE_SAMPLE_RATE)[0].numpy()))
        except ValueError as error:
            clips.append(replace(clip, reason=str(error)))
    return Version(name="original", title="Original", clips=tuple(clips))


def by_anchor(anchor: Anchor, original: Version) -> Version:
    """The clips after a classical codec; a clip that its command refuses carries the reason."""
    version = Version(name=anchor.name, title=anchor.title, clips=(), kbits=anchor.kbits, bits="nominal")
    if anchor.missing:
        return replace(version, missing=anchor.missing)
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
        version = replace(version, kbits=bits / seconds / 1000, bits="measured, without container")
    return _in_step(replace(version, clips=tuple(clips)), original)


@torch.no_grad()
def by_codebooks(
    tokenizer: ConversationalRVQ,
    corpus: Corpus,
    turns: Sequence[Turn],
    codebooks: Sequence[int],
    original: Version,
    *,
    conditioned: bool = False,
) -> tuple[list[Version], torch.Tensor]:
    """The clips from each number of first codebooks, and the codes of all clips one after the other.

    Args:
        tokenizer: In eval mode, on the CPU.
        corpus, turns: What `original` holds, read again at the tokenizer's own rate.
        codebooks: Numbers of first codebooks.
        original: The clips as recorded.
        conditioned: Hand the decoder each clip's own speaker and emotion embedding. A voice that is known
            from its codes alone has none, so they are withheld by default.

    Returns:
        A version for each number, and codes int64 [1, K, T].
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
    versions = [
        Version(
            name=f"codebooks_{count}",
            title=f"{count} codebooks" if count > 1 else "1 codebook",
            clips=tuple(clips),
            kbits=count * rate,
            bits="nominal: codebooks x frames a second x log2 of their size",
            codebooks=count,
        )
        for count, clips in decoded.items()
    ]
    return [_in_step(version, original) for version in versions], torch.cat(codes, dim=-1)


def _in_step(version: Version, original: Version) -> Version:
    """The version at the judges' rate, without its delay, no longer than the recording.

    Codec2 answers 18 ms late. STOI and the mel distance compare frames of 10 to 25 ms one by one, so without
    this they would judge the wait and not the speech. Tokenizers are treated alike, and what was taken off
    stands in the report: a tokenizer in time has a delay of 0.
    """
    clips = [prepared(clip) for clip in version.clips]
    pairs = [
        (recorded.waveform, clip.waveform)
        for recorded, clip in zip(original.clips, clips, strict=True)
        if recorded.waveform is not None and clip.waveform is not None
    ]
    delay = common_delay(pairs, JUDGE_SAMPLE_RATE)
    moved = [
        clip
        if clip.waveform is None or recorded.waveform is None
        else replace(clip, waveform=without_delay(clip.waveform, delay, len(recorded.waveform)))
        for recorded, clip in zip(original.clips, clips, strict=True)
    ]
    return replace(version, clips=tuple(moved), delay=delay / JUDGE_SAMPLE_RATE)
