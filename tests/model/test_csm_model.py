"""The model as its users call it: text, voice, both; sizes that fit; weights that come back."""

import math

import pytest
import torch

from csm.losses import ConversationTargets, conversational_loss
from csm.model import CSMConfig, CSMModel
from csm.network.batch_layout import summed_codes
from csm.network.outputs import CSMLogits


def codes_of(shape=(2, 5, 6)) -> torch.Tensor:
    return torch.randint(0, 24, shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_both_together_are_teacher_forced(tiny_model) -> None:
    model = tiny_model()
    out = model(["hello", "you"], codes_of())
    assert out.codebook0.shape == (2 * 7, 27)  # every frame and the end
    assert out.depth.shape == (2 * 6, 4, 27)
    assert out.text.shape == (len("hello") + 1 + len("you") + 1, model.codec.vocab_size)
    assert out.prosody.shape == (14, 3) and out.duration.shape == (2,)
    assert isinstance(out, CSMLogits)


@torch.no_grad()
def test_text_alone_gives_voice_and_voice_alone_gives_text(tiny_model) -> None:
    model = tiny_model().train()
    voice = model(["hello", "you there"]).voice_codes
    assert voice.shape[:2] == (2, 5) and voice.dtype == torch.int64
    assert int(voice.min()) >= 0 and int(voice.max()) <= model.config.end_code
    texts = model(voice_codes=codes_of()).text_tokens
    assert len(texts) == 2 and all(isinstance(t, str) for t in texts)
    assert model.training  # generation without dropout leaves the mode as it was


@torch.no_grad()
def test_texts_may_come_as_padded_ids(tiny_model) -> None:
    model = tiny_model()
    ids = torch.full((2, 7), 256)
    ids[0, :5], ids[1, :3] = torch.tensor(list(b"hello")), torch.tensor(list(b"you"))
    a, b = model(ids, codes_of()), model(["hello", "you"], codes_of())
    assert torch.equal(a.text, b.text)


def test_at_random_initialisation_the_losses_are_those_of_guessing() -> None:
    torch.manual_seed(0)
    model = CSMModel(CSMConfig(d_model=64, n_layers=2, n_heads=2, depth_d_model=64))
    codes = torch.randint(0, 1024, (2, 32, 10))
    out = model(["hello", "you"], codes)
    targets = ConversationTargets.of(model.pair_rows(["hello", "you"], codes), 10)
    parts = conversational_loss(out, targets).parts
    for name in ("codebook0", "semantic", "acoustic"):
        assert abs(float(parts[name].detach()) - math.log(1027)) < 0.7
    assert abs(float(parts["text"].detach()) - math.log(model.codec.vocab_size)) < 0.5


def test_every_parameter_is_trained_by_conversation(tiny_model, random_turn) -> None:
    model = tiny_model(depth_inputs="sum", latent_dim=8).train()
    builder = model.new_rows()
    builder.begin_sequence([random_turn(f"p{i}") for i in range(6)])
    turn = random_turn("a")
    ids = len(model.codec.encode_turn(turn.text, turn.speaker))
    builder.add_spoken(turn._replace(ends=torch.linspace(0, turn.codes.shape[1], ids)))
    builder.add_transcribed(random_turn("b", "other"))
    batch = builder.build()
    targets = ConversationTargets.of(batch, 2, torch.randn(5, 24, 8))
    conversational_loss(model.logits(batch), targets).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle


def test_a_batch_with_nothing_to_speak_still_has_a_loss(tiny_model, random_turn) -> None:
    model = tiny_model()
    for add in ("add_transcribed", "add_spoken"):
        builder = model.new_rows()
        getattr(builder, add)(random_turn("a"), train=add == "add_transcribed")
        batch = builder.build()
        result = conversational_loss(model.logits(batch), ConversationTargets.of(batch, 2))
        result.backward()
        assert result.total.isfinite() and float(result.parts["acoustic"].detach()) == 0


def test_weights_come_back_from_their_folder(tiny_model, tmp_path) -> None:
    model = tiny_model(cross_layers=(0, 2), memory_layers=())
    model.save_pretrained(tmp_path / "model")
    again = CSMModel.from_pretrained(tmp_path / "model")
    assert again.config == model.config and not again.training
    with torch.no_grad():
        assert torch.equal(model(["hi"], codes_of((1, 5, 6))).text, again(["hi"], codes_of((1, 5, 6))).text)
    with pytest.raises(ValueError, match="no model in"):
        CSMModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("codebooks", [2, 3])
def test_models_of_few_codebooks_work(tiny_model, codebooks) -> None:
    model = tiny_model(num_codebooks=codebooks, semantic_codebooks=codebooks)
    with torch.no_grad():
        out = model(["hello", "you"], codes_of())
    assert out.depth.shape[1] == codebooks - 1


@pytest.mark.parametrize(
    ("text", "codes", "message"),
    [
        (None, None, "got none"),
        ("hello", None, "one string"),
        ([""], None, r"items \[0\] is empty"),
        (["hi", "  "], None, r"items \[1\] is empty"),
        ([], None, "is empty"),
        (torch.zeros(3), None, r"expected int64 \[B, L\]"),
        (torch.full((1, 3), -1), None, "text_tokens range over -1..-1"),
        (torch.full((1, 3), 999), None, "text_tokens range over 999..999"),
        (["hi"], codes_of((2, 5, 6)), "1 texts with voice of batch 2"),
        (None, codes_of((5, 6)), r"expected int64 \[B, K, T\] with K >= 5"),
        (None, codes_of((2, 4, 6)), "K >= 5"),
        (None, codes_of((2, 5, 0)), "at least one frame"),
        (None, codes_of().float(), "float32"),
        (None, codes_of() + 10, r"range over .*: expected 0..23"),
        (None, codes_of() - 10, r"range over .*: expected 0..23"),
        (["x" * 400], None, "split it into sentences"),
        (None, codes_of((1, 5, 400)), "split it into turns"),
        (["x" * 100], codes_of((1, 5, 100)), "max_context is 160"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(tiny_model, text, codes, message) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_model()(text, codes)


def test_a_batch_excludes_texts_and_voices(tiny_model) -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match="one or the other"):
        model(["hello", "you"], batch=model.pair_rows(["hello", "you"], codes_of()))


@pytest.mark.parametrize(
    "field",
    [
        {"d_model": 100, "n_heads": 12},
        {"d_model": 36, "n_heads": 12},
        {"depth_d_model": 30, "depth_n_heads": 4},
        {"n_kv_heads": 5},
        {"semantic_codebooks": 33},
        {"num_codebooks": 1, "semantic_codebooks": 1},
        {"memory_slots": 1},
        {"cross_layers": (12,)},
        {"memory_layers": (-2,)},
        {"dropout": 1.0},
        {"cross_window": -1},
        {"n_layers": 0},
        {"codebook_size": 0},
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(field) -> None:
    with pytest.raises(ValueError, match=next(iter(field))):
        CSMConfig(**field)


def test_the_shortcuts_replace_the_config() -> None:
    model = CSMModel(CSMConfig(depth_d_model=32), d_model=192, n_layers=2, n_heads=2)
    assert (model.config.d_model, model.config.n_layers, model.config.n_heads) == (192, 2, 2)
    with pytest.raises(ValueError, match="d_model is 100 with 12 heads: expected a multiple of 24"):
        CSMModel(d_model=100)
    with pytest.raises(ValueError, match="text_vocab_size is 100"):
        CSMModel(CSMConfig(d_model=64, n_heads=2, n_layers=1, text_vocab_size=100))


def test_frame_dropout_hides_whole_voice_rows_in_training_only(tiny_model) -> None:
    model = tiny_model(frame_dropout=0.5)
    text = torch.tensor([65, *[-1] * 200])
    codes = torch.cat([torch.full((1, 5), -1), torch.zeros(200, 5, dtype=torch.int64)])
    whole = model.embed_rows(text, codes)
    model.train()
    torch.manual_seed(0)
    rows = model.embed_rows(text, codes)
    hidden = (rows == 0).all(dim=1)
    assert 60 < int(hidden.sum()) < 140 and not hidden[0]
    assert torch.equal(rows[~hidden], whole[~hidden])


def test_rows_and_depth_codes_are_gathered_at_once_and_give_the_table_one_gradient(tiny_model) -> None:
    model = tiny_model()
    table = model.audio_embedding.weight
    sums, singles = torch.tensor([[0, 30, 60], [1, 30, 99]]), torch.tensor([[5], [30]])
    first, second = model.gather_sums(summed_codes(sums, singles))
    torch.testing.assert_close(first, table[sums].sum(1))
    assert torch.equal(second, table[singles[:, 0]])
    (first.sum() + 2 * second.sum()).backward()
    expected = torch.zeros(len(table)).index_add_(0, sums.flatten(), torch.ones(6))
    expected.index_add_(0, singles.flatten(), torch.full((2,), 2.0))
    torch.testing.assert_close(table.grad, expected[:, None].expand_as(table))
    empty, rest = model.gather_sums(summed_codes(sums[:0], singles))
    assert empty.shape == (0, table.shape[1]) and torch.equal(rest, second)


def test_a_latent_needs_a_depth_decoder_that_reads_sums() -> None:
    for changes in ({"latent_dim": 8}, {"latent_dim": -1, "depth_inputs": "sum"}, {"depth_inputs": "all"}):
        with pytest.raises(ValueError, match="expected"):
            CSMConfig(**changes)
