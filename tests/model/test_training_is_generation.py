"""What generation computes step by step, cached, is what training computes over the same rows at once."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from csm.data.frames import TurnFrames
from csm.generation.sampling import SamplingConfig
from csm.generation.session import Session
from csm.model.csm_model import CSMModel
from csm.model.layers import KeyValueCache

TOLERANCE = 1e-4
TEXTS = ["one", "a longer second turn", "third", "and the fourth of them", "five"]
FRAMES = [7, 12, 5, 14, 9]


class Recorder:
    """Keeps every row that a backbone gives, and every depth logit, in the order of generation."""

    def __init__(self, model: CSMModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[torch.Tensor] = []
        self.depth: list[torch.Tensor] = []
        backbone, logits = model.backbone.forward, model.depth_decoder.logits

        def recorded(x, positions, attend, **others):
            hidden = backbone(x, positions, attend, **others)
            if isinstance(attend, KeyValueCache):
                # A session that starts its context anew starts the record anew.
                self.rows = [*(self.rows if attend.length else []), hidden]
            return hidden

        def recorded_logits(row, codebook):
            out = logits(row, codebook)
            self.depth.append(out)
            return out

        monkeypatch.setattr(model.backbone, "forward", recorded)
        monkeypatch.setattr(model.depth_decoder, "logits", recorded_logits)

    def hidden(self) -> torch.Tensor:
        return torch.cat(self.rows)


def turns(random_turn) -> list[TurnFrames]:
    parts = zip(TEXTS, FRAMES, strict=True)
    return [random_turn(f"t{i}", text, frames, i % 2) for i, (text, frames) in enumerate(parts)]


def speak(session: Session, text: str, speaker: int, frames: int | None) -> torch.Tensor:
    return torch.stack(list(session.speak(text, speaker, frames=frames)), dim=1)


def forward_of(model: CSMModel, context, past, *, train_last: bool = True):
    """The training batch of the turns in a session's context: same order, same lengths, same past."""
    builder = model.new_rows()
    builder.begin_sequence(past)
    for index, (turn, length) in enumerate(context):
        builder.add_spoken(turn, length=length, train=train_last and index == len(context) - 1)
    return builder.build()


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


@pytest.fixture(params=["own length", "much shorter", "much longer"])
def spoken(request, tiny_model, random_turn, monkeypatch):
    """A session that heard turns, lost some to the memory, and spoke; its rows; the batch of training."""
    model = tiny_model(max_context=110)
    session = Session(model, SamplingConfig(max_seconds=1.6, shortest=0.0, seed=3))
    heard = turns(random_turn)
    for turn in heard:
        session.listen(turn)
    recorder = Recorder(model, monkeypatch)
    # Two frames expected, and twenty may come: far beyond the window of three frames to each side.
    frames = {"own length": None, "much shorter": 2, "much longer": 40}[request.param]
    monkeypatch.setattr("csm.generation.session.LONGEST_SHARE", 9.0)
    codes = speak(session, "now I speak", 1, frames)
    kept = len(session.turns) - 1
    assert 0 < kept < len(heard) and codes.shape[1] > 8
    past = heard[: len(heard) - kept]
    assert int(session.memory.turns) == len(past) > 0
    batch = forward_of(model, session.turns, past)
    return model, session, recorder, batch, codes


@torch.no_grad()
def test_every_hidden_row_is_the_one_of_training(spoken) -> None:
    model, session, recorder, batch, codes = spoken
    hidden = model.hidden_rows(batch)
    last = len(hidden) - len(recorder.hidden())
    assert last >= 0
    assert difference(recorder.hidden(), hidden[last:]) < TOLERANCE
    # The rows of the spoken turn are among them: its text, its frames and the end row.
    assert len(recorder.hidden()) >= len(model.codec.encode_turn("now I speak", 1)) + codes.shape[1] + 1


@torch.no_grad()
def test_every_logit_is_the_one_of_training_codebook_by_codebook(spoken) -> None:
    model, session, recorder, batch, codes = spoken
    output = model.forward_rows(batch)
    steps, books = codes.shape[1], model.config.num_codebooks
    depth = torch.stack(recorder.depth[: steps * (books - 1)]).unflatten(0, (steps, books - 1))
    assert difference(depth, output.depth_logits) < TOLERANCE
    rows = recorder.hidden()[-(steps + 2) : -1]
    assert difference(model.codebook0_head(rows), output.codebook0_logits) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize(
    "fault", ["hidden off by one", "depth labels shifted", "query off by one", "no memory"]
)
def test_the_comparison_catches_planted_faults(spoken, fault, monkeypatch) -> None:
    model, session, recorder, batch, codes = spoken
    hidden = model.hidden_rows(batch)
    mine = recorder.hidden()
    steps, books = codes.shape[1], model.config.num_codebooks
    depth = torch.stack(recorder.depth[: steps * (books - 1)]).unflatten(0, (steps, books - 1))
    if fault == "hidden off by one":
        assert difference(mine[1:], hidden[-len(mine) : -1]) > 100 * TOLERANCE
        rows = model.depth_rows(batch)
        late = model.depth_decoder(hidden[rows + 1], model.embed_codes(batch.code_target[rows, :-1]))
        assert difference(depth, late) > 100 * TOLERANCE
    elif fault == "depth labels shifted":
        rows = model.depth_rows(batch)
        shifted = model.depth_decoder(hidden[rows], model.embed_codes(batch.code_target[rows, 1:]))
        assert difference(depth, shifted) > 100 * TOLERANCE
    elif fault == "query off by one":
        moved = [
            s._replace(first_query=s.first_query + 1, num_queries=s.num_queries - 1) for s in batch.spans
        ]
        wrong = model.hidden_rows(replace(batch, spans=moved))
        assert difference(mine, wrong[-len(mine) :]) > 100 * TOLERANCE
    else:
        builder_past = replace(batch.past, counts=batch.past.counts * 0, sequence=batch.past.sequence - 1)
        wrong = model.hidden_rows(replace(batch, past=builder_past))
        assert difference(mine, wrong[-len(mine) :]) > 100 * TOLERANCE


@torch.no_grad()
def test_a_turn_listened_to_gives_the_rows_of_training(tiny_model, random_turn, monkeypatch) -> None:
    model = tiny_model()
    recorder = Recorder(model, monkeypatch)
    session = Session(model)
    heard = turns(random_turn)[:3]
    for turn in heard:
        session.listen(turn)
    batch = forward_of(model, session.turns, [], train_last=False)
    assert difference(recorder.hidden(), model.hidden_rows(batch)) < TOLERANCE


@torch.no_grad()
def test_writing_gives_the_rows_and_logits_of_training(tiny_model, random_turn, monkeypatch) -> None:
    model = tiny_model()
    # The end id is never the likeliest: as many ids are written as may be.
    model.text_embedding.weight[model.codec.end_id] = 0
    session = Session(model)
    before = turns(random_turn)[1]
    session.listen(before)
    recorder = Recorder(model, monkeypatch)
    heard = random_turn("heard", frames=6, speaker=1)
    kept: list[torch.Tensor] = []
    monkeypatch.setattr(session, "_rebuild", lambda turns: kept.append(recorder.hidden()))
    written: list[int] = []
    monkeypatch.setattr(model.codec, "decode", lambda ids: written.extend(ids) or "x")
    session.write(heard.codes, speaker=1)
    hidden = kept[0]
    assert len(written) > 10

    builder = model.new_rows()
    builder.add_spoken(before, train=False)
    monkeypatch.setattr(model.codec, "encode_text", lambda text: [*written, model.codec.end_id])
    builder.add_heard(heard._replace(text="what was written"))
    batch = builder.build()
    trained = model.hidden_rows(batch)
    # Training also runs the row of the end id, which predicts nothing.
    assert difference(hidden, trained[-len(hidden) - 1 : -1]) < TOLERANCE
    rows = hidden[-len(written) - 1 :]
    logits = F.linear(rows, model.text_embedding.weight)
    assert difference(logits, model.forward_rows(batch).text_logits) < TOLERANCE
    assert logits[:-1].argmax(dim=1).tolist() == written
    # The fault of reading the voice one row late is seen.
    *others, span = batch.spans
    late = span._replace(first_query=span.first_query + 1, num_queries=span.num_queries - 1)
    wrong = model.hidden_rows(replace(batch, spans=[*others, late]))
    assert difference(hidden, wrong[-len(hidden) - 1 : -1]) > 100 * TOLERANCE


@torch.no_grad()
def test_a_turn_stopped_in_the_middle_leaves_the_rows_of_training(
    tiny_model, random_turn, monkeypatch
) -> None:
    model = tiny_model()
    recorder = Recorder(model, monkeypatch)
    session = Session(model, SamplingConfig(shortest=1.0, max_seconds=2.0))
    session.listen(turns(random_turn)[0])
    voice = session.speak("stop me now", 0, frames=12)
    said = [next(voice) for _ in range(4)]
    voice.close()
    assert torch.equal(session.turns[-1].turn.codes, torch.stack(said, dim=1))
    batch = forward_of(model, session.turns, [])
    assert difference(recorder.hidden(), model.hidden_rows(batch)) < TOLERANCE
