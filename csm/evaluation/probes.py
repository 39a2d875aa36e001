"""What do the codes carry? Linear probes of our own: letters and speakers out of code vectors.

A probe sees, of each frame, the sum of the code vectors of the semantic codebooks, that of the acoustic ones,
or both side by side. It is linear, so that what it finds was laid out in the vectors and not worked out by
the probe (Alain and Bengio 2016), and it is judged on clips that it was not trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torchaudio.functional import edit_distance
from tqdm import tqdm

from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.data.utterances import CTC_ALPHABET, spell
from csm.evaluation.codec_ladder import ExtraTable
from csm.evaluation.speaker import SpeakerEncoder
from csm.evaluation.statistics import (
    Score,
    bootstrap_repeats,
    by_conversation,
    interval,
    judged,
    pooled_mean,
    seed_for,
)
from csm.evaluation.verification import HEADER as VERIFICATION_HEADER
from csm.evaluation.verification import TITLE as VERIFICATION_TITLE
from csm.evaluation.verification import VerificationConfig, speaker_verification, with_interval
from csm.system.threads import one_thread
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.quantizer import SplitQuantizer
from csm.tokenizer.training.losses import CTC_OUTPUTS_PER_FRAME

TITLE = "Letters and speakers out of the codes (linear probes of our own)"
HEADER = ("codebooks", "character error rate [95 % CI]", "clips", "speaker accuracy [95 % CI]", "clips")
STREAMS = ("semantic", "acoustic", "all")
ENCODE_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """How the probes are trained and judged.

    Attributes:
        train_clips: Clips of the train split at most, drawn in turns from every speaker: one of them alone
            speaks four tenths of the quickstart corpus.
        max_seconds: Longer clips are left out everywhere.
        judged_texts: Test clips at most that are judged by letters.
        fewest_clips: A speaker with fewer training clips is none of the speaker probe's answers.
        judged_per_speaker: Clips of a speaker at most that are judged by speaker.
        window: Frames whose vectors the letters' layer sees together, odd: the own one in the middle.
        steps, batch, learning_rate: Of Adam, whose rate falls linearly to 0, for letters.
        ridge: L2 penalty of the speakers' regression, on standardised features and the mean loss of a clip.
        repeats: Of the bootstrap. seed: Of every draw.
    """

    train_clips: int = 1600
    max_seconds: float = 4.0
    judged_texts: int = 500
    fewest_clips: int = 20
    judged_per_speaker: int = 30
    window: int = 3
    steps: int = 300
    batch: int = 64
    learning_rate: float = 0.001
    ridge: float = 0.01
    repeats: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.window < 1 or self.window % 2 == 0:
            raise ValueError(f"window={self.window}: expected an odd number of frames, 1 or more")
        for name, value in vars(self).items():
            if name not in ("ridge", "seed") and not value > 0:
                raise ValueError(f"{name}={value}: expected above 0")
        if self.ridge < 0:
            raise ValueError(f"ridge={self.ridge}: expected 0 or above")


class CodedClip(NamedTuple):
    """What the probes know of a clip.

    Attributes:
        turn: Who speaks, what, where.
        vectors: fp32 [T, C] by stream ("semantic", "acoustic", "all"; the last is 2 C wide).
    """

    turn: Turn
    vectors: dict[str, Tensor]


def code_vectors(quantizer: SplitQuantizer, codes: Int[Tensor, "K T"]) -> dict[str, Float[Tensor, "T C"]]:
    """Sums of the code vectors of each frame, by stream."""
    rows, first = codes.T, quantizer.semantic_codebooks
    semantic = quantizer.semantic.lookup(rows[:, :first])
    acoustic = quantizer.acoustic.lookup(rows[:, first:])
    both = torch.cat([semantic, acoustic], dim=1)
    return dict(zip(STREAMS, (part.detach().cpu() for part in (semantic, acoustic, both)), strict=True))


@one_thread()
@torch.no_grad()
def encode_clips(tokenizer: ConversationalRVQ, corpus: Corpus, turns: Sequence[Turn]) -> list[CodedClip]:
    """Every turn's code vectors, in the order of `turns`."""
    config, device = tokenizer.config, next(tokenizer.parameters()).device
    # Neighbours in length share a batch: little padding, and a causal encoder's codes do not depend on it.
    ordered = sorted(turns, key=lambda turn: (turn.duration, turn.id))
    found: dict[str, CodedClip] = {}
    with tqdm(total=len(ordered), desc="code vectors", unit="clip", ascii=True, dynamic_ncols=True) as bar:
        for start in range(0, len(ordered), ENCODE_BATCH):
            group = ordered[start : start + ENCODE_BATCH]
            waveforms = [read_turn(corpus, turn, config.sample_rate)[0] for turn in group]
            lengths = torch.tensor([len(waveform) for waveform in waveforms])
            audio = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True).unsqueeze(1)
            codes, _ = tokenizer.encode(audio.to(device), lengths)
            for row, turn in enumerate(group):
                frames = -(-int(lengths[row]) // config.samples_per_frame)
                found[turn.id] = CodedClip(turn, code_vectors(tokenizer.quantizer, codes[row, :, :frames]))
            bar.update(len(group))
    return [found[turn.id] for turn in turns]


@one_thread()
def character_scores(
    train: Sequence[CodedClip], held_out: Sequence[CodedClip], stream: str, config: ProbeConfig
) -> list[Score]:
    """Character error rate of a CTC probe (Graves et al. 2006) on each held-out clip.

    One linear layer from the standardised vectors of `window` frames to four outputs per frame, so that a
    frame of 80 ms can hold more than one letter; the likeliest outputs are read without a language model.

    Args:
        train, held_out: Clips; training passes over those without letters or with more than their outputs.
        stream: Of STREAMS.
        config: How to train.

    Returns:
        Letters wrong / letters of the text, weighted by letters; `detail` is what was read. Held-out clips
        without letters have no score.

    Raises:
        ValueError: No clip to train on.
    """
    texts = [spell(clip.turn.text) for clip in train]
    usable = [i for i, clip in enumerate(train) if 0 < _outputs_needed(texts[i]) <= _outputs(clip, stream)]
    if not usable:
        raise ValueError(
            f"none of {len(train)} training clips has a text that its frames can hold; check the texts"
        )
    frames = [train[i].vectors[stream] for i in usable]
    mean, scale = _scale(torch.cat(frames))
    frames = [(part - mean) / scale for part in frames]
    # A window over frames is a convolution, and a convolution of one layer is linear.
    shape = (CTC_OUTPUTS_PER_FRAME * len(CTC_ALPHABET), len(mean), config.window)
    weight, bias = torch.zeros(shape).requires_grad_(), torch.zeros(shape[0]).requires_grad_()
    optimizer = torch.optim.Adam([weight, bias], lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=config.steps)
    generator = torch.Generator().manual_seed(seed_for(config.seed, "letters"))
    for _ in range(config.steps):
        picks = torch.randperm(len(usable), generator=generator)[: config.batch].tolist()
        targets = [torch.tensor(texts[usable[i]]) for i in picks]
        loss = F.ctc_loss(
            _symbols([frames[i] for i in picks], weight, bias).transpose(0, 1),
            torch.cat(targets),
            torch.tensor([len(frames[i]) * CTC_OUTPUTS_PER_FRAME for i in picks]),
            torch.tensor([len(target) for target in targets]),
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    scores = []
    with torch.no_grad():
        for clip in held_out:
            if reference := _letters(spell(clip.turn.text)):
                outputs = _symbols([(clip.vectors[stream] - mean) / scale], weight, bias)[0].argmax(-1)
                read = _letters(torch.unique_consecutive(outputs).tolist())
                rate = edit_distance(reference, read) / len(reference)
                turn = clip.turn
                scores.append(judged(turn.id, turn.conversation, rate, weight=len(reference), detail=read))
    return scores


@one_thread()
def speaker_scores(
    train: Sequence[CodedClip], held_out: Sequence[CodedClip], stream: str, config: ProbeConfig
) -> list[Score]:
    """Whether a probe names the speaker of each held-out clip: 1 or 0, `detail` the name.

    Multinomial logistic regression with an L2 penalty on the mean and the standard deviation over a clip of
    each dimension of the vectors, standardised over the training clips.

    Args:
        train: Clips; the speakers of these are the answers.
        held_out: Clips of the same speakers. stream: Of STREAMS. config: How to train.

    Raises:
        ValueError: Fewer than two speakers to train on.
    """
    names = sorted({clip.turn.speaker for clip in train})
    if len(names) < 2:
        raise ValueError(
            f"{len(names)} speakers to train on: expected two at least, or nothing can be told apart"
        )
    features = torch.stack([_summary(clip.vectors[stream]) for clip in train])
    target = torch.tensor([names.index(clip.turn.speaker) for clip in train])
    mean, scale = _scale(features)
    features = (features - mean) / scale
    weight = torch.zeros(features.shape[1], len(names), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(names), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(features @ weight + bias, target) + config.ridge / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    scores = []
    with torch.no_grad():
        for clip in held_out:
            found = ((_summary(clip.vectors[stream]) - mean) / scale) @ weight + bias
            name = names[int(found.argmax())]
            right = float(name == clip.turn.speaker)
            scores.append(judged(clip.turn.id, clip.turn.conversation, right, detail=name))
    return scores


def what_the_codes_carry(
    tokenizer: ConversationalRVQ,
    corpus: Corpus,
    *,
    probes: ProbeConfig | None = None,
    verification: VerificationConfig | None = None,
    encoder: SpeakerEncoder | None = None,
) -> list[ExtraTable]:
    """Letters and speakers out of the codes by linear probes, and the speaker embedding's equal error rate.

    On one thread whatever the machine, so that the figures do not depend on it. A table that this corpus is
    too small for has no rows, and its note says why.

    Args:
        tokenizer: In eval mode. corpus: With train, validation and test turns that have texts.
        probes, verification: Sizes; None takes the defaults.
        encoder: The embedding beside the tokenizer's. None: Resemblyzer, where it is installed.
    """
    try:
        first = probe_table(tokenizer, corpus, probes)
    except ValueError as error:
        first = ExtraTable(TITLE, HEADER, [], f"Not measured: {error}.")
    try:
        second = speaker_verification(tokenizer, corpus, verification, encoder=encoder)
    except ValueError as error:
        second = ExtraTable(VERIFICATION_TITLE, VERIFICATION_HEADER, [], f"Not measured: {error}.")
    return [first, second]


def probe_table(
    tokenizer: ConversationalRVQ, corpus: Corpus, config: ProbeConfig | None = None
) -> ExtraTable:
    """Both probes on the semantic vectors, the acoustic ones and all, beside what guessing would reach.

    Raises:
        ValueError: Too few clips to train or judge on.
    """
    config = config or ProbeConfig()
    train, by_text, by_speaker = _draw(corpus, config)
    turns = list({turn.id: turn for turn in (*train, *by_text, *by_speaker)}.values())
    clips = {clip.turn.id: clip for clip in encode_clips(tokenizer, corpus, turns)}
    spoken = [clips[turn.id] for turn in train]
    known = {turn.speaker for turn in by_speaker}
    rows: list[tuple[str, ...]] = []
    for stream in tqdm(STREAMS, desc="probes", unit="stream", ascii=True, dynamic_ncols=True):
        letters = character_scores(spoken, [clips[t.id] for t in by_text], stream, config)
        voices = speaker_scores(
            [clip for clip in spoken if clip.turn.speaker in known],
            [clips[t.id] for t in by_speaker],
            stream,
            config,
        )
        cells = [_cells(scores, name, config) for name, scores in (("letters", letters), ("voices", voices))]
        rows.append((stream, *cells[0], *cells[1]))
    commonest = max(sum(turn.speaker == name for turn in by_speaker) for name in known) / len(by_speaker)
    rows.append(("guessing", "1.000 (reads nothing)", "-", f"{commonest:.3f} (the commonest)", "-"))
    note = (
        f"Linear probes trained by ourselves (seed {config.seed}) on {len(train)} clips of the train split, "
        f"up to {config.max_seconds:g} s, drawn evenly over speakers. Letters: one layer over "
        f"{config.window} frames' vectors, {CTC_OUTPUTS_PER_FRAME} CTC outputs a frame, {config.steps} "
        f"steps of Adam, read greedily, judged on {len(by_text)} test clips whose lines are not in the "
        f"train split. Speakers: logistic regression on mean and deviation over a clip, judged on "
        f"{len(by_speaker)} clips of validation and test, {len(known)} speakers, up to "
        f"{config.judged_per_speaker} clips each. Intervals resample conversations. A probe that finds "
        f"little does not show that little is there: one that is not linear may find more."
    )
    return ExtraTable(TITLE, HEADER, rows, note)


def _draw(corpus: Corpus, config: ProbeConfig) -> tuple[list[Turn], list[Turn], list[Turn]]:
    """Turns to train on, to judge by letters and to judge by speaker."""
    generator = np.random.default_rng([config.seed, 0])

    def shuffled(split: str) -> list[Turn]:
        turns = [t for t in corpus.turns(split) if t.duration <= config.max_seconds]
        return [turns[i] for i in generator.permutation(len(turns))]

    def evenly(turns: Sequence[Turn]) -> list[tuple[int, Turn]]:
        """Every turn with its number among its speaker's, ordered by it."""
        counts: Counter[str] = Counter()
        numbered = []
        for turn in turns:
            numbered.append((counts[turn.speaker], turn))
            counts[turn.speaker] += 1
        return sorted(numbered, key=lambda pair: pair[0])

    pools = {split: shuffled(split) for split in ("train", "validation", "test")}
    train = [turn for _, turn in evenly(pools["train"])][: config.train_clips]
    # Lines come back in other conversations: a tokenizer trained on their texts may know them by heart.
    familiar = {tuple(spell(turn.text)) for turn in corpus.turns("train")}
    by_text = [t for t in pools["test"] if spell(t.text) and tuple(spell(t.text)) not in familiar]
    counts = Counter(turn.speaker for turn in train)
    known = {name for name, count in counts.items() if count >= config.fewest_clips}
    candidates = [t for t in (*pools["validation"], *pools["test"]) if t.speaker in known]
    by_speaker = [turn for number, turn in evenly(candidates) if number < config.judged_per_speaker]
    if not by_text or len({turn.speaker for turn in by_speaker}) < 2:
        raise ValueError(
            f"{corpus.root} has, up to {config.max_seconds:g} s, {len(by_text)} test clips with new lines "
            f"and {len(by_speaker)} clips to judge by speaker: expected one at least, and two speakers with "
            f"{config.fewest_clips} of {len(train)} training clips each; raise train_clips or lower "
            f"fewest_clips"
        )
    return train, by_text[: config.judged_texts], by_speaker


def _cells(scores: Sequence[Score], name: str, config: ProbeConfig) -> tuple[str, str]:
    """Pooled mean with its interval by conversation, and how many clips."""
    groups, mean = by_conversation(scores), pooled_mean(scores, None)
    assert mean is not None, "every clip is judged"
    draws = bootstrap_repeats(
        groups,
        lambda picked: pooled_mean([score for group in picked for score in group], None),
        repeats=config.repeats,
        seed=seed_for(config.seed, name),
    )
    return with_interval(mean, interval(draws) if len(groups) > 1 else None), str(len(scores))


def _outputs(clip: CodedClip, stream: str) -> int:
    return len(clip.vectors[stream]) * CTC_OUTPUTS_PER_FRAME


def _outputs_needed(symbols: Sequence[int]) -> int:
    """CTC writes a blank between two equal letters."""
    return len(symbols) + sum(a == b for a, b in zip(symbols, symbols[1:], strict=False))


def _letters(symbols: Sequence[int]) -> str:
    """Text of CTC symbols without blanks, single spaces between words."""
    return " ".join("".join(CTC_ALPHABET[s] for s in symbols if s).split())


def _symbols(frames: Sequence[Tensor], weight: Tensor, bias: Tensor) -> Float[Tensor, "B T4 A"]:
    """Log probabilities of every output of clips [T, C], padded with frames of zeros, the mean."""
    padded = torch.nn.utils.rnn.pad_sequence(list(frames), batch_first=True)
    hidden = F.conv1d(padded.transpose(1, 2), weight, bias, padding=weight.shape[2] // 2).transpose(1, 2)
    return hidden.reshape(len(frames), -1, len(CTC_ALPHABET)).log_softmax(-1)


def _scale(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column; a column that does not vary stays as it is."""
    deviation = rows.std(dim=0, correction=0)
    return rows.mean(dim=0), torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))


def _summary(vectors: Float[Tensor, "T C"]) -> Float[Tensor, " C2"]:
    """Mean and standard deviation over a clip, float64."""
    rows = vectors.double()
    return torch.cat([rows.mean(dim=0), rows.std(dim=0, correction=0)])
