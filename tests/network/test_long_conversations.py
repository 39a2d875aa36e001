"""Long conversations: bounded state, positions in their range, gradients as far back as chosen, jitter."""

import math
from collections.abc import Iterator

import pytest
import torch

from csm.data.code_shards import EncodedTurn
from csm.data.dataset import ConversationDataset, DatasetConfig
from csm.data.manifest import Conversation, Corpus, Turn
from csm.data.turn_table_file import table_of
from csm.generation.sampling import SamplingConfig
from csm.generation.session import Session
from csm.losses import ConversationTargets, conversational_loss
from csm.model import CSMModel
from csm.network.cross_attention import CrossAttention
from csm.network.layers import KeyValueCache
from csm.network.memory import GIST_DECAY, folding_weights
from csm.sequences.packed_batch import RowBatch
from csm.sequences.past_turns import pack_past
from csm.sequences.turns import FRAMES_PER_SECOND, TurnFrames
from csm.text import ByteCodec
from tests.parity.logits import align
from tests.parity.session import SessionAdapter

CODES = torch.randint(0, 24, (5, 2000), generator=torch.Generator().manual_seed(0))


def conversation(turns: int, frames: int) -> Iterator[TurnFrames]:
    """Turns of two speakers, each with texts of one length and codes of its own."""
    for index in range(turns):
        codes = CODES[:, index % 1000 :][:, :frames].clone()
        yield TurnFrames(f"t{index:04d}", f"turn number {index:04d}", index % 2, codes)


# ---- state ----


def held(thing: object, seen: set[int]) -> int:
    """Bytes that an object of csm keeps alive: storages of tensors, texts, one per place of a list."""
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        storage = thing.untyped_storage()
        fresh = storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        return storage.nbytes() if fresh else 0
    if isinstance(thing, str):
        return len(thing.encode())
    if isinstance(thing, (list, tuple)):
        return len(thing) + sum(held(part, seen) for part in thing)
    if isinstance(thing, dict):
        return len(thing) + sum(held(part, seen) for part in thing.values())
    if hasattr(thing, "__dict__") and type(thing).__module__.startswith("csm."):
        return held(vars(thing), seen)
    return 0


def state_bytes(session: Session) -> int:
    """Bytes of a session besides its model's."""
    return held({name: value for name, value in vars(session).items() if name != "model"}, set())


@torch.no_grad()
def test_the_state_of_an_hour_is_no_larger_than_that_of_five_minutes(tiny_model) -> None:
    """The most bytes at any time of 60 minutes are the most of the first 5; slots and rows as well."""
    layers, rows, width, frames = 2, 400, 32, 150
    model = tiny_model(max_context=rows, n_layers=layers)
    session, slots = Session(model), model.config.memory_slots
    per_minute = int(60 * FRAMES_PER_SECOND) // frames
    sizes = []
    for turn in conversation(60 * per_minute, frames):
        session.listen(turn)
        sizes.append(state_bytes(session))
    assert len(sizes) == 300 and max(sizes) == max(sizes[: 5 * per_minute])
    # The measure sees what is there: keys and values of all layers, two memories, codes of the turns.
    assert max(sizes) > 4 * (2 * layers * rows * width + 2 * slots * width) + 2 * 8 * 5 * frames
    assert session.memory.semantic.shape == session.memory.style.shape == (1, slots, width)
    assert int(session.memory.turns) + len(session.turns) == 300


@torch.no_grad()
def test_the_measure_sees_what_a_session_that_forgets_nothing_would_keep(tiny_model) -> None:
    session = Session(tiny_model(max_context=100))
    session.everything = everything = []
    sizes = []
    for turn in conversation(12, 20):
        session.listen(turn)
        everything.append(turn)
        sizes.append(state_bytes(session))
    assert sizes[-1] - sizes[5] >= 6 * 20 * 5 * 8


# ---- positions ----


@torch.no_grad()
def test_positions_stay_below_the_context_in_ten_contexts_of_conversation(tiny_model, monkeypatch) -> None:
    """The rule: positions count rows from the oldest turn kept, and restart when turns leave."""
    model = tiny_model(max_context=100)
    longest = model.config.max_context
    session = Session(model, SamplingConfig(max_seconds=1.0))
    starts: list[int] = []
    backbone = model.backbone.forward

    def checked(x, positions, attend, **others):
        assert isinstance(attend, KeyValueCache)
        assert positions.tolist() == list(range(attend.length, attend.length + len(x)))
        assert 0 <= int(positions[0]) and int(positions[-1]) < longest
        starts.append(int(positions[0]))
        return backbone(x, positions, attend, **others)

    monkeypatch.setattr(model.backbone, "forward", checked)
    rows = 0
    for index, turn in enumerate(conversation(30, 30)):
        if index % 20 == 9:
            list(session.speak(turn.text, turn.speaker))
        elif index % 20 == 15:
            session.transcribe(turn.codes, turn.speaker)
        else:
            session.listen(turn)
        rows += session.context.rows_of(session.turns[-1].turn)
    assert rows > 10 * longest and starts.count(0) > 10


def test_ten_contexts_on_the_generator_still_computes_what_training_computes(tiny_model) -> None:
    model = tiny_model(max_context=80)
    turns = list(conversation(30, 9))
    adapter = SessionAdapter(model)
    played = adapter.play([turns], spoken=[29])
    rows = sum(len(model.codec.encode_turn(t.text, t.speaker)) + t.codes.shape[1] + 1 for t in turns)
    assert rows > 10 * model.config.max_context and len(played.prefixes[0].past) > 25
    report = align(adapter, played)
    assert report.equal and report.untaught == 0, report


# ---- the clock of cross-attention ----


@torch.no_grad()
@pytest.mark.parametrize("frames", [None, 3])
def test_the_length_comes_from_the_head_or_the_user_and_speech_runs_past_it_on_the_last_letters(
    frames, tiny_model, monkeypatch
) -> None:
    model = tiny_model()
    if frames is None:
        model.duration_head.weight.zero_()
        model.duration_head.weight[0, 0] = 1e-6
        model.duration_head.bias.fill_(1.4)  # e^1.4 = 4 frames
        # The pace agrees: nine ids of 4 frames together.
        model.pace_head.pace.weight.fill_(1e-9)
        model.pace_head.pace.bias.fill_(math.log(4 / 8))
    clocks: list[float] = []
    outputs: list[torch.Tensor] = []
    read = CrossAttention.forward

    def recorded(layer, x, reading, index):
        out = read(layer, x, reading, index)
        if layer is model.backbone.voice_reads["1"]:
            clocks.append(float(reading.query_positions[-1]))
            outputs.append(out[-1])
        return out

    monkeypatch.setattr(CrossAttention, "forward", recorded)
    # No end is drawn before the cut, twice the length and a second.
    session = Session(model, SamplingConfig(shortest=99.0, max_seconds=4.0))
    said = list(session.speak("run on", 0, frames=frames))
    expected = frames or 4
    assert session.turns[-1].length == expected and len(said) == 2 * expected + 12
    assert clocks == [float(min(place, expected)) for place in range(1, len(said) + 2)]
    assert all(bool(out.isfinite().all()) and bool((out != 0).any()) for out in outputs)
    # Out of the window's reach all rows read one thing, the end of the text.
    beyond = outputs[expected + model.config.cross_window :]
    assert len(beyond) > 5 and all(torch.allclose(out, beyond[0], atol=1e-6) for out in beyond)


# ---- training on chunks ----


@pytest.fixture(scope="module")
def long_corpus(tmp_path_factory) -> tuple[Corpus, dict[str, EncodedTurn]]:
    """One conversation of 40 turns of 30 frames."""
    turns = list(conversation(40, 30))
    found = tuple(
        Turn(
            id=t.id,
            conversation="c",
            index=index,
            speaker="AB"[t.speaker],
            text=t.text,
            audio="a.flac",
            end=1.0,
        )
        for index, t in enumerate(turns)
    )
    corpus = Corpus(
        root=tmp_path_factory.mktemp("corpus"),
        conversations=(Conversation(id="c", split="train", turns=found),),
        info={},
    )
    prosody, mark = torch.zeros(30, 3).half(), torch.zeros(2)
    return corpus, {t.id: EncodedTurn(t.id, t.codes.short(), prosody, mark) for t in turns}


def dataset(long_corpus, **changes) -> ConversationDataset:
    """Chunks of at most two turns, of 50 rows each, one a step."""
    plain = {"rows_per_micro_batch": 100, "max_rows": 100, "transcribe_share": 0.0, "depth_share": 1.0}
    return ConversationDataset(
        table_of(*long_corpus, "train", ByteCodec(), numbers={"A": 0, "B": 1}),
        codec=ByteCodec(),
        num_codebooks=5,
        end_code=24,
        config=DatasetConfig(**{**plain, **changes}),
        micro_batches=1,
        seed=0,
    )


def late_chunk(data: ConversationDataset, past_turns: int) -> RowBatch:
    """A chunk of two turns with at least 20 turns before it."""
    for step in range(1, 30):
        batch = data.batch(step, 0)
        if len(batch.ids) == 2 and int(batch.ids[0][1:]) >= 20:
            assert batch.past.counts.tolist() == [past_turns]
            return batch
    raise AssertionError("no late chunk in 29 steps")


def loss_of(model: CSMModel, batch: RowBatch) -> torch.Tensor:
    return conversational_loss(model.logits(batch), ConversationTargets.of(batch, 2)).total


@pytest.mark.parametrize("chunks", [1, 3, 6])
def test_gradients_pass_through_the_chosen_number_of_chunks_and_no_further(
    chunks, tiny_model, long_corpus, monkeypatch
) -> None:
    model, learning = tiny_model(), 2 * chunks
    data = dataset(long_corpus, past_turns=16, past_gradient_turns=learning)
    batch = late_chunk(data, 16)
    vectors: list[torch.Tensor] = []
    turn_vectors = model.turn_vectors

    def kept(past):
        vectors.extend(turn_vectors(past))
        for vector in vectors:
            vector.retain_grad()
        return tuple(vectors)

    monkeypatch.setattr(model, "turn_vectors", kept)
    loss_of(model, batch).backward()
    # What was said and how, of every turn of these chunks, the oldest through the gist; of none before.
    for vector in vectors:
        passed = vector.grad.abs().sum(dim=1) > 0
        assert passed.tolist() == [False] * (16 - learning) + [True] * learning
    # They are read all the same: the turns before the chunk are there.
    first = int(batch.ids[0][1:])
    newest = data.table.turns_of(0, first - 16, first)
    assert torch.equal(batch.past.codes, torch.cat([turn.codes.T for turn in newest]))


@pytest.mark.parametrize("chunks", [1, 3, 6])
def test_a_chunk_with_its_past_is_the_unroll_of_the_chunks_before_it(
    chunks, tiny_model, long_corpus, monkeypatch
) -> None:
    """The same loss and gradients as a state that is handed from turn to turn, its graph with it."""
    model = tiny_model()
    batch = late_chunk(dataset(long_corpus, past_turns=2 * chunks), 2 * chunks)
    parameters = list(model.memory.parameters())
    folded = loss_of(model, batch)
    expected = torch.autograd.grad(folded, parameters)

    def unrolled(past, _folding):
        state = model.memory.empty(1, past.codes.device)
        semantic, style = model.turn_vectors(past)
        for turn in range(len(semantic)):
            state = model.memory.write(state, semantic[turn : turn + 1], style[turn : turn + 1])
        return state

    monkeypatch.setattr(model, "remember", unrolled)
    stepwise = loss_of(model, batch)
    torch.testing.assert_close(stepwise, folded, atol=1e-5, rtol=1e-5)
    for mine, whole in zip(torch.autograd.grad(stepwise, parameters), expected, strict=True):
        assert bool((whole != 0).any())
        torch.testing.assert_close(mine, whole, atol=1e-5, rtol=1e-3)


@torch.no_grad()
def test_training_remembers_what_generation_does_to_a_ten_thousandth_of_one_slot(tiny_model) -> None:
    """Generation folds every past turn, training the newest 64: only the gist of older ones is missing."""
    model = tiny_model(memory_slots=16)
    turns = list(conversation(100, 3))
    kept = DatasetConfig().past_turns
    whole, cut = (model.remember(pack_past([past], model.codec, 5)) for past in (turns, turns[-kept:]))
    for mine, theirs in ((whole.semantic, cut.semantic), (whole.style, cut.style)):
        torch.testing.assert_close(mine[:, 1:], theirs[:, 1:], atol=1e-6, rtol=0)
        torch.testing.assert_close(mine[:, 0], theirs[:, 0], atol=1e-3, rtol=0)
    share = folding_weights(pack_past([turns], model.codec, 5), 16)[0, 0, :-kept].sum()
    assert float(share) == pytest.approx(GIST_DECAY ** (kept - 15), abs=1e-6) and float(share) < 1e-4


def test_training_jitters_the_length_by_ten_percent_to_both_sides(long_corpus) -> None:
    def lengths() -> list[int]:
        data = dataset(long_corpus, rows_per_micro_batch=2000, max_rows=1000)
        batches = [data.batch(step, 0) for step in range(1, 9)]
        # The length to predict is the real one.
        for batch in batches:
            known = batch.duration_target[~batch.duration_target.isnan()]
            assert torch.equal(known, torch.full_like(known, 30.0).log())
        return [span.length for batch in batches for span in batch.voice_spans]

    drawn = lengths()
    assert len(drawn) > 200 and set(drawn) == set(range(27, 34))
    assert sum(drawn) / len(drawn) == pytest.approx(30, abs=0.3)
    # Evenly: whole numbers of frames but for the two ends, which have half the room.
    counts = [drawn.count(length) / len(drawn) for length in range(28, 33)]
    assert min(counts) > 0.1 and max(counts) < 0.25
