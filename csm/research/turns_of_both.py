"""Word errors and latency of held-out turns: heard, spoken, and answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from csm.data.manifest import Turn
from csm.data.turn_audio import read_turn
from csm.evaluation.core.clips import EVALUATION_RATE, Clip
from csm.evaluation.core.metric import MetricInfo, Score, Scores, failed, scored
from csm.evaluation.metrics.words import SpeechRecogniser, error_scores
from csm.generation.session import Session
from csm.model import CSMModel
from csm.network.predicted_latent import latent_vectors
from csm.research.material import Material
from csm.sequences.turns import TurnFrames
from csm.system.threads import one_thread

HEARD, SPOKEN, LATENCY = "heard_wer", "spoken_wer", "answer_latency"
TITLES = {
    HEARD: ("Word errors of what is written", "errors per word", "written text against the turn's text"),
    SPOKEN: ("Word errors of what is spoken", "errors per word", "a recogniser's text of what is spoken"),
    LATENCY: (
        "Time from a heard turn to the answer",
        "seconds",
        "time to write a heard turn's text, and from a text to the first frame, on this machine, one thread",
    ),
}


class Line(NamedTuple):
    """A held-out turn: as codes, and as a clip without audio."""

    turn: TurnFrames
    clip: Clip


def line_info(name: str) -> MetricInfo:
    """Describes a metric of lines."""
    title, unit, definition = TITLES[name]
    return MetricInfo(
        name=name,
        title=title,
        area="lines",
        unit=unit,
        direction="lower",
        evaluator="csm.research.turns_of_both",
        definition=definition,
    )


def lines_of(material: Material) -> list[Line]:
    """Returns at most `material.lines` held-out turns, evenly over the conversations' stretches."""
    found = []
    for stretch in material.held_out(with_past=False, local=False):
        turn = stretch.chunk.turns[0].turn
        clip = Clip(id=turn.id, conversation=stretch.conversation, text=turn.text)
        found.append(Line(turn, clip))
    step = max(1, len(found) // max(1, material.lines))
    return found[::step][: material.lines]


@one_thread()
def heard(
    listener: CSMModel | SpeechRecogniser, lines: Sequence[Line], material: Material | None = None
) -> Scores:
    """Scores what a model writes of codes, or a recogniser of the recordings, which `material` has."""
    write = writer_of(listener, material)
    transcripts = []
    for line in lines:
        try:
            transcripts.append(scored(line.clip, 0.0, detail=write(line)))
        except ValueError as error:
            transcripts.append(failed(line.clip, str(error)))
    return Scores(info=line_info(HEARD), scores=error_scores([line.clip for line in lines], transcripts))


def writer_of(listener: CSMModel | SpeechRecogniser, material: Material | None) -> Callable[[Line], str]:
    """Returns what writes down a turn."""
    if isinstance(listener, CSMModel):
        model = listener
        return lambda line: Session(model).transcribe(line.turn.codes, line.turn.speaker)
    assert material is not None, "a recogniser needs recordings"
    recogniser, corpus = listener, material.corpus
    turns: dict[str, Turn] = {turn.id: turn for turn in corpus.turns()}

    def write(line: Line) -> str:
        audio = read_turn(corpus, turns[line.turn.id], EVALUATION_RATE)[0]
        return recogniser.transcribe(audio.numpy(), EVALUATION_RATE)

    return write


@one_thread()
@torch.no_grad()
def spoken(
    material: Material, model: CSMModel, lines: Sequence[Line], recogniser: SpeechRecogniser
) -> Scores:
    """Scores what a recogniser writes of the lines as a model speaks them.

    Raises:
        ValueError: The codes' tokenizer has moved.
    """
    tokenizer, transcripts = material.tokenizer(), []
    with_vectors(material, model)
    for line in lines:
        frames = [*session_of(material, model).speak(line.turn.text, line.turn.speaker)]
        if not frames:
            transcripts.append(failed(line.clip, "no frame was spoken"))
            continue
        audio = tokenizer.decode(torch.stack(frames, dim=1)[None])[0, 0].numpy()
        text = recogniser.transcribe(audio, tokenizer.config.sample_rate)
        transcripts.append(scored(line.clip, 0.0, detail=text))
    return Scores(info=line_info(SPOKEN), scores=error_scores([line.clip for line in lines], transcripts))


@one_thread()
def latencies(
    material: Material,
    listener: CSMModel | SpeechRecogniser,
    voice: CSMModel,
    lines: Sequence[Line],
) -> Scores:
    """Scores the seconds from a heard turn to the first frame of an answer, which repeats the turn's text.

    One model answers in the session that has heard the turn; a voice beside another listener has no context.
    """
    with_vectors(material, voice)
    write = writer_of(listener, material)
    scores: list[Score] = []
    for line in lines:
        session = session_of(material, voice)
        began = time.perf_counter()
        try:
            if listener is voice:
                session.transcribe(line.turn.codes, line.turn.speaker)
            else:
                write(line)
            answer = session.speak(line.turn.text, line.turn.speaker)
            next(answer, None)
            seconds = time.perf_counter() - began
            answer.close()
            scores.append(scored(line.clip, seconds))
        except ValueError as error:
            scores.append(failed(line.clip, str(error)))
    return Scores(info=line_info(LATENCY), scores=scores)


def with_vectors(material: Material, model: CSMModel) -> None:
    """Gives a model what its codes add to a latent."""
    count = model.config.num_codebooks
    if model.config.latent_dim:
        model.set_code_vectors(latent_vectors(material.tokenizer().code_vectors()[:count]))


def session_of(material: Material, model: CSMModel) -> Session:
    """Returns a conversation with the recipe's sampling, at the material's seed."""
    return Session(model, replace(material.recipe.sampling, seed=material.seed))
