"""What generation computes step by step, cached, is what training computes over the same rows at once."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from csm.generation.sampling import SamplingConfig
from csm.generation.session import Session
from csm.model import CSMModel
from csm.network.layers import KeyValueCache
from csm.sequences.turns import TurnFrames
from tests.parity.logits import CodeLogits, align, compare
from tests.parity.session import Played, SessionAdapter

TOLERANCE = 1e-4
TEXTS = ["one", "a longer second turn", "third", "and the fourth of them", "five"]
FRAMES = [7, 12, 5, 14, 9]


def turns(random_turn) -> list[TurnFrames]:
    parts = zip(TEXTS, FRAMES, strict=True)
    return [random_turn(f"t{i}", text, frames, i % 2) for i, (text, frames) in enumerate(parts)]


# Playing takes seconds and is a function of these alone; no test changes what it gives.
PLAYED: dict[float, tuple[CSMModel, Played]] = {}


def play(pace: float, tiny_model, random_turn) -> tuple[CSMModel, Played]:
    """Two conversations that overflow the context into the memory and, there, into its gist."""
    if pace not in PLAYED:
        model, conversation = tiny_model(max_context=80), [*turns(random_turn), *turns(random_turn)[::-1]]
        PLAYED[pace] = (
            model,
            SessionAdapter(model).play([conversation, conversation[1:]], spoken=[1, 4, 9], pace=pace),
        )
    return PLAYED[pace]


@pytest.fixture
def played(tiny_model, random_turn) -> tuple[CSMModel, Played]:
    return play(1.0, tiny_model, random_turn)


# ---- every logit, for every prefix ----


@pytest.mark.parametrize("pace", [1.0, 0.15, 3.0])
def test_for_every_prefix_every_logit_of_training_is_what_the_generator_saw(
    pace, tiny_model, random_turn
) -> None:
    """Packed, with memory and cross-attention, at the turn's own length and far off it."""
    model, played = play(pace, tiny_model, random_turn)
    report = align(SessionAdapter(model), played)
    assert report.equal, report
    spoken = [prefix.context[-1] for prefix in played.prefixes]
    frames = sum(context.turn.codes.shape[1] for context in spoken)
    books = model.config.num_codebooks
    assert report.compared == frames * books + len(spoken) and report.untaught == 0
    assert len(report.by_codebook) == books
    # Among them are prefixes whose memory has a gist, and one whose voice runs out of the reach of its text.
    assert max(len(prefix.past) for prefix in played.prefixes) > model.config.memory_slots
    assert max(len(prefix.context) for prefix in played.prefixes) >= 2
    assert pace != 0.15 or max(c.turn.codes.shape[1] - c.length for c in spoken) > model.config.cross_window


@pytest.mark.parametrize("share", [1 / 16, 1 / 4])
def test_a_drawn_share_of_the_frames_is_what_the_generator_saw_of_them(played, share) -> None:
    model, passage = played
    adapter = SessionAdapter(model, depth_share=share, seed=3)
    report = align(adapter, passage)
    assert report.equal and report.untaught == 0, report
    whole = len(SessionAdapter(model).rows(passage).trained_frames())
    drawn = len(adapter.rows(passage).trained_frames())
    assert drawn == round(share * whole) > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"zeros_end": True},
        {"n_kv_heads": 1, "depth_n_kv_heads": 1},
        {"rope_scaling": 32.0},
        {"depth_inputs": "sum"},
        {"depth_inputs": "sum", "latent_dim": 8},
        {"memory_layers": (0, 1, 2, 3), "cross_layers": (0, 1, 2, 3)},
        {"memory_layers": (), "cross_layers": ()},
    ],
    ids=str,
)
def test_it_holds_for_models_of_other_parts(changes, tiny_model, random_turn) -> None:
    model, conversation = tiny_model(max_context=60, **changes), turns(random_turn)[:4]
    adapter = SessionAdapter(model)
    report = align(adapter, adapter.play([conversation], spoken=[3]))
    # A row of zeros is drawn codebook by codebook, an end code by the first alone.
    assert report.equal and report.untaught == 0, report
    assert report.compared == 14 * 5 + (5 if "zeros_end" in changes else 1)


@torch.no_grad()
def test_a_pack_gives_the_logits_of_each_sequence_alone(played) -> None:
    model, passage = played
    adapter = SessionAdapter(model)
    packed = adapter.teacher_forced_logits(passage)
    for index, prefix in enumerate(passage.prefixes):
        alone = adapter.teacher_forced_logits(Played([prefix], passage.seen))
        alone.places[:, 0] = index
        assert compare(alone, packed).equal


# ---- turns that are heard, written or stopped ----


class Recorder:
    """Keeps every row that a backbone gives, in the order of generation."""

    def __init__(self, model: CSMModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[torch.Tensor] = []
        backbone = model.backbone.forward

        def recorded(x, positions, attend, **others):
            hidden = backbone(x, positions, attend, **others)
            if isinstance(attend, KeyValueCache):
                # A session that rebuilds its context restarts the record.
                self.rows = [*(self.rows if attend.length else []), hidden]
            return hidden

        monkeypatch.setattr(model.backbone, "forward", recorded)

    def hidden(self) -> torch.Tensor:
        return torch.cat(self.rows)


def rows_of(model: CSMModel, context):
    """The training batch of the turns in a session's context: same order, same lengths."""
    builder = model.new_rows()
    for turn, length in context:
        builder.add_spoken(turn, length=length, train=False)
    return builder.build()


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


@torch.no_grad()
def test_a_turn_listened_to_gives_the_rows_of_training(tiny_model, random_turn, monkeypatch) -> None:
    model = tiny_model()
    guesses = Session(model)
    for turn in turns(random_turn)[:3]:
        guesses.listen(turn)
    # Their alignment is unknown; the model's guess is kept with them.
    heard = [context.turn for context in guesses.turns]
    assert all(turn.ends is not None and float(turn.ends[-1]) == turn.codes.shape[1] for turn in heard)
    recorder = Recorder(model, monkeypatch)
    session = Session(model)
    for turn in heard:
        session.listen(turn)
    batch = rows_of(model, session.turns)
    assert difference(recorder.hidden(), model.hidden_rows(batch)) < TOLERANCE


@torch.no_grad()
def test_writing_gives_the_logits_of_training(tiny_model, random_turn, monkeypatch) -> None:
    model = tiny_model()
    # The end id is never the argmax: the transcript runs to its limit.
    model.text_embedding.weight[model.codec.end_id] = 0
    session = Session(model)
    before = turns(random_turn)[1]
    session.listen(before)
    recorder = Recorder(model, monkeypatch)
    heard = random_turn("heard", frames=6, speaker=1)
    kept: list[torch.Tensor] = []
    monkeypatch.setattr(session.context, "rebuild", lambda turns: kept.append(recorder.hidden()))
    written: list[int] = []
    monkeypatch.setattr(model.codec, "decode", lambda ids: written.extend(ids) or "x")
    session.transcribe(heard.codes, speaker=1)
    assert len(written) > 10

    builder = model.new_rows()
    builder.add_spoken(session.turns[0].turn, train=False)
    monkeypatch.setattr(model.codec, "encode_text", lambda text: [*written, model.codec.end_id])
    builder.add_transcribed(heard._replace(text="what was written"))
    batch = builder.build()

    def said(rows: torch.Tensor, first: int, ids) -> CodeLogits:
        places = torch.stack(
            [torch.zeros(len(rows)), torch.arange(len(rows)) + first, torch.zeros(len(rows))]
        )
        return CodeLogits(places.T.long(), ids, F.linear(rows, model.text_embedding.weight))

    # Training also runs the row of the end id, which predicts nothing.
    first = len(batch.text) - 1 - len(kept[0])
    drawn = torch.tensor([*written, model.codec.end_id])
    rows = kept[0][-len(drawn) :]
    generation = said(rows, first + len(kept[0]) - len(drawn), drawn)
    assert generation.logits[:-1].argmax(dim=1).tolist() == written

    def training(batch) -> CodeLogits:
        writes = (batch.text_target >= 0).nonzero()[:, 0]
        return said(model.hidden_rows(batch)[writes], int(writes[0]), batch.text_target[writes])

    assert compare(training(batch), generation).equal
    # The fault of reading the voice one row late is seen.
    (span,) = batch.text_spans
    late = span._replace(first_query=span.first_query + 1, num_queries=span.num_queries - 1)
    report = compare(training(replace(batch, text_spans=[late])), generation)
    assert not report.equal and report.first.size > 100 * TOLERANCE


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
    batch = rows_of(model, session.turns)
    assert difference(recorder.hidden(), model.hidden_rows(batch)) < TOLERANCE
