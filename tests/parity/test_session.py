"""The alignment kit on our own model: each fault of public trainers is planted, and caught where it is."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from csm.losses import ConversationTargets, conversational_loss
from csm.model import CSMModel
from csm.network.layers import KeyValueCache, PackedSequences
from csm.sequences.row_builder import RowBuilder
from tests.parity.logits import Alignment, align, weigh
from tests.parity.session import VOICE_ONLY, Played, SessionAdapter

TOLERANCE = 1e-4
# Played once: no test changes the model or what was seen.
PLAYED: list[tuple[CSMModel, Played]] = []


@pytest.fixture
def played(tiny_model, random_turn) -> tuple[CSMModel, Played]:
    """Four prefixes of two conversations, of which some remember turns."""
    if not PLAYED:
        model = tiny_model(max_context=80)
        parts = [("one", 7), ("a longer second turn", 12), ("third", 5), ("the fourth of them", 14)]
        turns = [random_turn(f"t{i}", *part, speaker=i % 2) for i, part in enumerate(parts)]
        PLAYED.append((model, SessionAdapter(model).play([turns, turns[::-1]], spoken=[1, 3])))
    return PLAYED[0]


def caught(played: tuple[CSMModel, Played], share: float = 1.0) -> Alignment:
    model, passage = played
    report = align(SessionAdapter(model, depth_share=share), passage)
    assert not report.equal
    if report.first.kind == "logits":
        assert report.first.size > 100 * TOLERANCE
    return report


def first_place(played: tuple[CSMModel, Played]) -> tuple[int, int]:
    """Sequence and row before the first frame that is trained."""
    sequence, row, _ = played[1].seen.places[0].tolist()
    return sequence, row


def with_depth_input(model: CSMModel, monkeypatch, change) -> None:
    forward = model.depth_decoder.forward
    monkeypatch.setattr(
        model.depth_decoder, "forward", lambda hidden, codes, *rest: forward(*change(hidden, codes), *rest)
    )


def planted_targets(monkeypatch, change) -> None:
    of = ConversationTargets.of
    monkeypatch.setattr(ConversationTargets, "of", lambda batch, semantic: change(of(batch, semantic)))


def test_a_hidden_state_off_by_one_in_the_depth_decoder_is_caught(played, monkeypatch) -> None:
    """The row before the right one: codebook 0 is clean, the first code of the depth decoder is not."""
    with_depth_input(played[0], monkeypatch, lambda hidden, codes: (hidden.roll(1, 0), codes))
    report = caught(played)
    assert report.first[:4] == ("logits", *first_place(played), 1)
    assert report.by_codebook[0] < TOLERANCE < min(report.by_codebook[1:])


def test_hidden_states_off_by_one_in_the_backbone_are_caught(played, monkeypatch) -> None:
    hidden_rows = played[0].hidden_rows
    monkeypatch.setattr(played[0], "hidden_rows", lambda batch, rows: hidden_rows(batch, rows).roll(1, 0))
    assert caught(played).first[:4] == ("logits", *first_place(played), 0)


def test_labels_that_are_shifted_twice_are_caught(played, monkeypatch) -> None:
    """The data shift them, and the loss once more: each row is to give the frame after the next."""
    build = RowBuilder.build

    def shifted(builder: RowBuilder):
        batch = build(builder)
        return replace(batch, code_target=batch.code_target.roll(-1, 0))

    monkeypatch.setattr(RowBuilder, "build", shifted)
    report = caught(played)
    sequence, row = first_place(played)
    # The row that is now the first to be trained draws nothing in generation.
    assert report.first[:4] == ("missing", sequence, row - 1, 0) and report.untaught > 0


def test_labels_of_codebook_0_that_are_shifted_twice_are_caught(played, monkeypatch) -> None:
    of = ConversationTargets.of
    monkeypatch.setattr(
        ConversationTargets,
        "of",
        lambda batch, semantic: of(batch, semantic)._replace(
            codebook0=of(batch, semantic).codebook0.roll(-1)
        ),
    )
    report = caught(played)
    # The logits are right, which is why no comparison of logits alone finds it.
    assert report.first.kind == "code" and report.first.codebook == 0
    assert max(report.by_codebook) < TOLERANCE


def test_depth_labels_that_are_shifted_by_a_codebook_are_caught(played, monkeypatch) -> None:
    planted_targets(monkeypatch, lambda t: t._replace(depth=t.depth.roll(-1, 1)))
    report = caught(played, share=1 / 4)
    assert report.first.kind == "code" and report.first.codebook == 1
    assert max(report.by_codebook) < TOLERANCE


def test_depth_inputs_that_tell_the_code_to_be_given_are_caught(played, monkeypatch) -> None:
    with_depth_input(played[0], monkeypatch, lambda hidden, codes: (hidden, codes.roll(-1, 1)))
    assert caught(played).first[:4] == ("logits", *first_place(played), 1)


def test_a_hidden_state_that_has_heard_the_frame_is_caught(played, monkeypatch) -> None:
    """Leaked: the depth decoder gets the row of the very frame whose codes it is to give."""
    with_depth_input(played[0], monkeypatch, lambda hidden, codes: (hidden.roll(-1, 0), codes))
    report = caught(played)
    assert report.first[:4] == ("logits", *first_place(played), 1)
    assert report.by_codebook[0] < TOLERANCE


def test_a_backbone_that_sees_the_rows_to_come_is_caught(played, monkeypatch) -> None:
    monkeypatch.setattr(PackedSequences, "__call__", seeing_all_rows)
    assert caught(played).first[:4] == ("logits", *first_place(played), 0)


def seeing_all_rows(layout, layer, q, k, v):
    q, k, v = (layout.pad(t).transpose(1, 2) for t in (q, k, v))
    return layout.unpad(F.scaled_dot_product_attention(q, k, v).transpose(1, 2))


def test_attention_across_packed_sequences_is_caught(played, monkeypatch) -> None:
    def across(layout, layer, q, k, v):
        q, k, v = (t.transpose(0, 1)[None] for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)[0].transpose(0, 1)

    monkeypatch.setattr(PackedSequences, "__call__", across)
    # The first sequence of a pack has nothing before it.
    assert caught(played).first[:2] == ("logits", 1)


def test_a_depth_decoder_that_remembers_the_frame_before_is_caught(
    tiny_model, random_turn, monkeypatch
) -> None:
    """Leaked on the generator's side: keys and values that are not reset for a new frame."""
    model = tiny_model()
    kept = KeyValueCache(len(model.depth_decoder.blocks), 100)
    monkeypatch.setattr(model.depth_decoder, "start", lambda: kept)
    passage = SessionAdapter(model).play([[random_turn("a", frames=3)]], spoken=[0])
    sequence, row = first_place((model, passage))
    assert caught((model, passage)).first[:4] == ("logits", sequence, row + 1, 1)


def test_voice_that_reads_its_text_one_row_late_is_caught(played, monkeypatch) -> None:
    build = RowBuilder.build

    def late(builder: RowBuilder):
        batch = build(builder)
        moved = [
            s._replace(first_query=s.first_query + 1, num_queries=s.num_queries - 1)
            for s in batch.voice_spans
        ]
        return replace(batch, voice_spans=moved)

    monkeypatch.setattr(RowBuilder, "build", late)
    assert caught(played).first.kind == "logits"


def test_a_memory_that_training_leaves_out_is_caught_where_there_is_one(played, monkeypatch) -> None:
    begin = RowBuilder.begin_sequence
    monkeypatch.setattr(RowBuilder, "begin_sequence", lambda builder, past=(): begin(builder))
    remembers = [index for index, prefix in enumerate(played[1].prefixes) if prefix.past]
    assert 0 < remembers[0] == caught(played).first.sequence


def test_labels_that_are_wrong_inside_the_loss_are_caught(played, monkeypatch) -> None:
    """Training forms no logits; what its loss says is held against what the generator saw and drew."""
    model, passage = played
    adapter = SessionAdapter(model)
    right = weigh(adapter, [passage], against="generation")
    assert right == pytest.approx((1.0, 1.0, 0.0), abs=1e-5)
    depth, head = model.depth_decoder.forward, model.codebook0_head.forward
    with monkeypatch.context() as planted:
        planted.setattr(
            model.depth_decoder, "forward", lambda h, c, t=None, *more: depth(h, c, rolled(t, 1), *more)
        )
        shifted = weigh(adapter, [passage], against="generation")
    assert abs(shifted.depth - 1) > 1e-3 and shifted.codebook0 == right.codebook0
    monkeypatch.setattr(
        model.codebook0_head, "forward", lambda x, t=None, *more: head(x, rolled(t, 0), *more)
    )
    shifted = weigh(adapter, [passage], against="generation")
    assert abs(shifted.codebook0 - 1) > 1e-3 and shifted.depth == right.depth


def rolled(labels: torch.Tensor | None, dim: int) -> torch.Tensor | None:
    return None if labels is None else labels.roll(-1, dim)


# ---- what each part weighs ----


def micro_batches(passage: Played, count: int) -> list[Played]:
    """The prefixes dealt to so many micro-batches, of different sizes."""
    return [Played(passage.prefixes[index::count], passage.seen) for index in range(count)]


def flat(model: CSMModel, monkeypatch) -> None:
    """All codes are equally likely: the cross-entropy of a part is ln V wherever it is measured."""
    for weight in (model.codebook0_head.weight, model.depth_decoder.heads):
        monkeypatch.setattr(weight, "data", torch.zeros_like(weight))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_both_parts_weigh_one_however_a_step_is_accumulated(played, count) -> None:
    model, passage = played
    weights = weigh(SessionAdapter(model), micro_batches(passage, count))
    assert weights == pytest.approx((1.0, 1.0, 0.0), abs=1e-5)
    # By the generator's own logits too.
    whole = weigh(SessionAdapter(model), micro_batches(passage, 1), against="generation")
    assert whole == pytest.approx(weights, abs=1e-5)


@pytest.mark.parametrize("share", [1 / 16, 1 / 4, 1.0])
@pytest.mark.parametrize("count", [1, 4])
def test_both_parts_weigh_one_at_any_ratio(played, share, count, monkeypatch) -> None:
    model, passage = played
    flat(model, monkeypatch)
    weights = weigh(SessionAdapter(model, depth_share=share), micro_batches(passage, count))
    assert weights == pytest.approx((1.0, 1.0, 0.0), abs=1e-5)


def test_the_gradient_of_a_step_does_not_depend_on_accumulation(played) -> None:
    model, passage = played
    parameters = [p for p in model.parameters() if p.requires_grad]

    def gradient(count: int) -> list[torch.Tensor]:
        total = SessionAdapter(model).step_loss(micro_batches(passage, count)).total
        found = torch.autograd.grad(total, parameters, allow_unused=True)
        return [g for g in found if g is not None]

    for whole, split in zip(gradient(1), gradient(4), strict=True):
        torch.testing.assert_close(split, whole, atol=1e-5, rtol=1e-4)


def test_the_draws_of_a_ratio_have_the_gradient_of_all_frames_as_their_mean(played) -> None:
    """Exactly: every frame is in one of four draws, so the mean over them is the expectation."""
    model, passage = played
    parts = list(model.depth_decoder.parameters())
    adapter = SessionAdapter(model)
    whole = adapter.rows(passage)
    frames = whole.trained_frames()
    # Draws of equal size: what is left over is drawn by none, in the expectation neither.
    frames = frames[: len(frames) // 4 * 4]

    def gradient(rows: torch.Tensor, all_frames: int) -> tuple[torch.Tensor, ...]:
        batch = replace(whole, depth_rows=rows)
        targets = ConversationTargets.of(batch, 2)._replace(frames=all_frames)
        loss = conversational_loss(model.logits(batch), targets, VOICE_ONLY).total
        return torch.autograd.grad(loss, parts)

    expected = gradient(frames, len(frames))
    draws = [gradient(frames[start::4], len(frames)) for start in range(4)]
    for index, full in enumerate(expected):
        mean = torch.stack([draw[index] for draw in draws]).mean(dim=0)
        torch.testing.assert_close(mean, full, atol=1e-6, rtol=1e-4)


def test_a_weight_that_changes_with_accumulation_is_caught(played, monkeypatch) -> None:
    """Every micro-batch divides by its own targets: short ones weigh as much as long ones."""
    model, passage = played
    planted_targets(
        monkeypatch,
        lambda t: t._replace(voice_count=float(len(t.codebook0)), frame_count=float(t.frames)),
    )
    assert weigh(SessionAdapter(model), micro_batches(passage, 1)) == pytest.approx((1, 1, 0), abs=1e-5)
    weights = weigh(SessionAdapter(model), micro_batches(passage, 4))
    assert abs(weights.codebook0 - 1) > 1e-3 and abs(weights.depth - 1) > 1e-3


@pytest.mark.parametrize("share", [1 / 4, 1.0])
def test_a_weight_that_changes_with_the_ratio_is_caught(played, share, monkeypatch) -> None:
    """The sum over drawn frames is divided by all frames: right only where all are drawn."""
    model, passage = played
    flat(model, monkeypatch)
    adapter = SessionAdapter(model, depth_share=share)
    rows = adapter.rows(passage)
    ratio = len(rows.trained_frames()) / int((rows.code_target[:, 1] >= 0).sum())
    planted_targets(monkeypatch, lambda t: t._replace(frames=len(t.depth)))
    weights = weigh(adapter, micro_batches(passage, 1))
    assert weights == pytest.approx((1.0, ratio, 0.0), abs=1e-4) and (ratio < 0.3 or share == 1)


def test_a_weight_of_as_many_as_there_are_codebooks_is_caught(played, monkeypatch) -> None:
    """Of transformers' Trainer: the sum over codebooks is divided by the frames, as if each were one."""
    model, passage = played
    flat(model, monkeypatch)
    planted_targets(
        monkeypatch,
        lambda t: t._replace(frames=len(t.depth), frame_count=t.voice_count / t.depth.shape[1]),
    )
    adapter = SessionAdapter(model, depth_share=1 / 4)
    rows = adapter.rows(passage)
    drawn, voice = len(rows.trained_frames()), int((rows.code_target[:, 0] >= 0).sum())
    weights = weigh(adapter, micro_batches(passage, 1))
    assert weights == pytest.approx((1.0, 4 * drawn / voice, 0.0), abs=1e-4)
