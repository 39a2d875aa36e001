"""How similar a voice is to one that has left the window: with no memory, with it, or with all turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from csm.audio.resampling import resample
from csm.evaluation.core.clips import EVALUATION_RATE
from csm.evaluation.core.metric import MetricInfo, Score, Scores
from csm.evaluation.metrics.speaker import SpeakerEncoder
from csm.generation.session import Session
from csm.model import CSMModel
from csm.network.predicted_latent import latent_vectors
from csm.research.material import Material
from csm.sequences.turns import TurnFrames
from csm.system.threads import one_thread
from csm.tokenizer.conversational_rvq import ConversationalRVQ

SIMILARITY = "similarity_to_evicted"
FULL = "both, all turns in the window"
#: Shortest turn whose voice is embedded, in frames: 1.6 s.
SHORTEST = 20


class Line(NamedTuple):
    """A held-out text to be spoken, and the turns before it, which have left the window.

    Attributes:
        id: Id of its turn. conversation: Its conversation.
        turn: The text with its speaker.
        past: Turns before it. evicted: The newest one of the same speaker.
    """

    id: str
    conversation: str
    turn: TurnFrames
    past: Sequence[TurnFrames]
    evicted: TurnFrames


def similarity_info(evaluator: str) -> MetricInfo:
    """Describes the metric."""
    return MetricInfo(
        name=SIMILARITY,
        title="Similarity to the voice that has left the window",
        area="memory",
        unit="cosine",
        direction="higher",
        evaluator=evaluator,
        definition="cosine of the speaker embeddings of what is spoken and of the speaker's newest turn "
        "before the window, both decoded from codes without an embedding of the tokenizer",
        worst=0.0,
    )


def lines_of(material: Material) -> list[Line]:
    """Returns at most `material.lines` lines whose speaker has spoken before the window."""
    found = []
    for stretch in material.held_out(with_past=True, local=True):
        turn = stretch.chunk.turns[0].turn
        before = [one for one in stretch.chunk.past if one.speaker == turn.speaker]
        long = [one for one in before if one.codes.shape[1] >= SHORTEST]
        if long:
            found.append(Line(stretch.id, stretch.conversation, turn, stretch.chunk.past, long[-1]))
    return found[: material.lines]


@one_thread()
@torch.no_grad()
def evicted_voice(
    material: Material, models: Mapping[str, CSMModel], encoder: SpeakerEncoder | None = None
) -> Iterator[tuple[str, Scores]]:
    """Yields the similarities of each arm, and those of "both" with all turns in its window.

    Raises:
        EvaluatorUnavailable: No speaker embedding is installed.
        ValueError: The codes' tokenizer has moved, or no speaker has spoken before the window.
    """
    encoder, tokenizer, lines = encoder or SpeakerEncoder(), material.tokenizer(), lines_of(material)
    if not lines:
        raise ValueError(f"no speaker of a held-out turn has a turn of {SHORTEST} frames before the window")
    config = material.recipe.model
    targets = [embedded(encoder, tokenizer, line.evicted.codes[: config.num_codebooks]) for line in lines]
    runs = [*((arm, model, False) for arm, model in models.items()), (FULL, models["both"], True)]
    for arm, model, whole in runs:
        if config.latent_dim:
            vectors = tokenizer.code_vectors()[: config.num_codebooks]
            model.set_code_vectors(latent_vectors(vectors))
        scores = []
        for line, target in zip(lines, targets, strict=True):
            voice = embedded(encoder, tokenizer, spoken(material, model, line, whole=whole))
            scores.append(_score(line, voice, target))
        yield arm, Scores(info=similarity_info(encoder.evaluator), scores=scores)


def spoken(material: Material, model: CSMModel, line: Line, *, whole: bool) -> Tensor:
    """Speaks a line after its past, which is in the window where `whole`, in the memory otherwise."""
    session = Session(model, replace(material.recipe.sampling, seed=material.seed))
    for turn in line.past if whole else ():
        session.listen(turn)
    if not whole and session.memory is not None:
        builder = model.new_rows()
        builder.begin_sequence(line.past)
        builder.add_spoken(line.turn)
        session.context.memory = model.remember(builder.build().past)
    frames = [*session.speak(line.turn.text, line.turn.speaker)]
    empty = torch.zeros(model.config.num_codebooks, 0, dtype=torch.int64)
    return torch.stack(frames, dim=1) if frames else empty


def embedded(encoder: SpeakerEncoder, tokenizer: ConversationalRVQ, codes: Tensor) -> np.ndarray | str:
    """Returns the speaker embedding of codes, or why there is none."""
    if not codes.shape[1]:
        return "no frame was spoken"
    audio = tokenizer.decode(codes[None].long())[0, 0]
    try:
        return encoder.embed(resample(audio, tokenizer.config.sample_rate, EVALUATION_RATE).numpy())
    except ValueError as error:
        return str(error)


def _score(line: Line, voice: np.ndarray | str, target: np.ndarray | str) -> Score:
    for side in (voice, target):
        if isinstance(side, str):
            return Score(clip=line.id, conversation=line.conversation, value=None, reason=side)
    cosine = float(np.dot(voice, target))
    return Score(clip=line.id, conversation=line.conversation, value=cosine)
