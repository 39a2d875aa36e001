"""The letter head spells transcribed turns alone, its loss is CTC's, and a session reads what was trained."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from csm.generation.session import Session
from csm.losses import ConversationTargets, LossConfig, conversational_loss
from csm.model import CSMModel
from csm.network.layers import PackedSequences
from csm.network.letter_head import HeardRows, LetterHead, letter_cross_entropy
from csm.network.model_config import CSMConfig
from csm.sequences.packed_batch import TextSpan
from csm.sequences.turns import TurnFrames
from csm.spelling import LETTERS, read_letters, spell
from csm.word_search import WordPairs

CONFIG = CSMConfig(
    d_model=32, n_layers=1, n_heads=2, cross_layers=(), memory_layers=(), depth_d_model=32,
    depth_n_layers=1, depth_n_heads=2, num_codebooks=4, semantic_codebooks=2,
    codebook_size=16, letters_per_frame=4,
)  # fmt: skip
WORDS = ("ab", "cab", "bad", "deal")


def turns():
    """Four words in three conversations: code 0 of each frame names its letter, the others are noise."""
    torch.manual_seed(3)
    found = []
    for number in range(12):
        word = WORDS[number % 4]
        codes = torch.randint(16, (4, len(word) + 3))
        codes[0] = 0
        codes[0, 1 : len(word) + 1] = torch.tensor(spell(word))
        found.append(TurnFrames(f"t{number}", word, number % 2, codes))
    return found


def rows_of(model, parts, spoken=(), size=4):
    builder = model.new_rows()
    for place, turn in enumerate(parts):
        if place % size == 0:
            builder.begin_sequence()
        (builder.add_spoken if place in spoken else builder.add_transcribed)(turn)
    return builder.build()


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    model = CSMModel(CONFIG)
    batch = rows_of(model, turns()[:4], size=1)
    targets = ConversationTargets.of(batch, 2)
    weights = LossConfig(text=0.0, letters=1.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    losses = []
    for _ in range(220):
        parts = conversational_loss(model(batch=batch), targets, weights).parts
        losses.append(float(parts["letters"].detach()))
        optimizer.zero_grad()
        parts["letters"].backward()
        optimizer.step()
    assert losses[-1] < 0.1 < losses[0], losses
    return model.eval()


def test_a_session_spells_the_words_that_were_trained(trained) -> None:
    for turn, word in zip(turns()[:4], WORDS, strict=True):
        session = Session(trained)
        assert session.transcribe(turn.codes, turn.speaker) == word
        assert [kept.turn.text for kept in session.turns] == [word], "it stands in the context with its text"


def test_after_earlier_turns_a_session_reads_what_training_computes(trained) -> None:
    first, second = turns()[1], turns()[2]
    batch = rows_of(trained, [first, second], spoken=(0,))
    with torch.no_grad():
        symbols = trained.logits(batch).letters.flatten(0, 1).argmax(-1)
    session = Session(trained)
    session.listen(first)
    assert session.transcribe(second.codes, second.speaker) == read_letters(symbols.tolist())


def test_heard_rows_are_the_frames_and_the_end_row_of_each_transcribed_turn() -> None:
    model = CSMModel(CONFIG)
    batch = rows_of(model, turns(), spoken=(1, 6))
    rows = HeardRows.of(batch.text_spans).rows
    codes, frames = (
        batch.codes[rows],
        [turn.codes.shape[1] for i, turn in enumerate(turns()) if i not in (1, 6)],
    )
    assert (codes[:, 0] >= 0).all() and len(rows) == sum(frames) + len(frames)
    assert (codes[:, 0] == model.config.end_code).sum() == len(frames)


def test_the_loss_is_torchs_and_turns_without_letters_count_nothing() -> None:
    torch.manual_seed(1)
    head = LetterHead(8, 3)
    head.reset_parameters()
    ends = torch.tensor([0, 4, 7, 9], dtype=torch.int32)
    scores = head(torch.randn(9, 8), PackedSequences.of(ends, 4))
    letters = [spell("ab"), [], spell("c")]
    flat = torch.tensor([*letters[0], *letters[2]])
    found = letter_cross_entropy(scores, [4, 3, 2], flat, [2, 0, 1])
    expected = torch.zeros(())
    for place, part in enumerate(scores.split([4, 3, 2])):
        sizes = torch.tensor([3 * len(part)]), torch.tensor([len(letters[place])])
        if len(letters[place]):
            one = part.flatten(0, 1).unsqueeze(1)
            expected = expected + F.ctc_loss(one, torch.tensor([letters[place]]), *sizes, reduction="sum")
    torch.testing.assert_close(found, expected)
    none = HeardRows.of([])
    nothing = letter_cross_entropy(head(torch.zeros(0, 8), none.turns), [], none.letters, [])
    nothing.backward()
    assert nothing == 0
    assert all(weight.grad is not None for weight in head.parameters()), "every rank has a gradient"


def test_a_step_split_into_batches_has_the_same_letter_loss(trained) -> None:
    parts = turns()
    whole = rows_of(trained, parts)
    targets = ConversationTargets.of(whole, 2)
    total = conversational_loss(trained(batch=whole), targets, LossConfig()).parts["letters"]
    halves = torch.zeros(())
    for first in (0, 4, 8):
        batch = replace(rows_of(trained, parts[first : first + 4]), letter_count=targets.letter_count)
        part = conversational_loss(trained(batch=batch), ConversationTargets.of(batch, 2), LossConfig())
        halves = halves + part.parts["letters"]
    torch.testing.assert_close(halves, total)


def test_training_hides_no_heard_frame() -> None:
    torch.manual_seed(0)
    model = CSMModel(replace(CONFIG, frame_dropout=0.9)).train()
    batch = rows_of(model, turns(), spoken=(1, 6))
    rows = HeardRows.of(batch.text_spans).rows
    frames = torch.ones(len(batch.text), model.config.d_model)
    embedded = model._text_or_frames(batch.text, frames, rows)
    assert embedded[rows].eq(1).all()
    spoken = torch.ones(len(batch.text), dtype=torch.bool)
    spoken[rows] = False
    assert embedded[spoken & (batch.text < 0)].eq(0).any()


def test_a_span_without_frames_is_heard_nowhere() -> None:
    assert HeardRows.of([TextSpan(5, 1, 0, 0)]).rows.tolist() == []


def test_letters_depend_on_the_rows_of_their_own_turn_as_far_as_ahead_and_no_further() -> None:
    torch.manual_seed(2)
    head = LetterHead(8, 2)
    head.reset_parameters()
    for weight in head.parameters():
        torch.nn.init.normal_(weight)
    count, place = 3 * head.AHEAD, head.AHEAD + 2
    rows = torch.randn(2 * count, 8, requires_grad=True)
    turns = PackedSequences.of(torch.tensor([0, count, 2 * count], dtype=torch.int32), count)
    (gradient,) = torch.autograd.grad(head(rows, turns)[place].square().sum(), rows)
    read = gradient.abs().sum(1).nonzero()[:, 0]
    assert (int(read.min()), int(read.max())) == (place - head.AHEAD, place + head.AHEAD)
    (gradient,) = torch.autograd.grad(head(rows, turns)[count].square().sum(), rows)
    assert int(gradient.abs().sum(1).nonzero()[:, 0].min()) == count, "nothing of the turn before"


@torch.no_grad()
def test_a_list_of_words_decides_between_letters_of_equal_probability():
    """The head's bias alone spells, "a" and "b" evenly: the word that texts hold is read."""
    head = LetterHead(8, 2)
    head.project.weight.zero_()
    head.project.bias.fill_(-20.0)
    for place, letter in enumerate("a_"):
        head.project.bias[place * len(LETTERS) + LETTERS.index(letter)] = 0.0
    head.project.bias[LETTERS.index("b")] = 0.1
    rows = torch.zeros(1, 8)
    assert head.text(rows) == "b"
    head.words = WordPairs.of(["a", "a dog"])
    assert head.text(rows) == "a"
