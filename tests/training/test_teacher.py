"""A frozen speech model as the teacher, on small random models of transformers."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from csm.recipes.named import recipe
from csm.recipes.steps.train_tokenizer import train_tokenizer
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.training.losses import TokenizerLossConfig
from csm.training.teacher import Teacher, TeacherConfig, require_teacher
from csm.training.tokenizer_task import TokenizerTask, TrainedParts

transformers = pytest.importorskip("transformers")

RATE = 8000
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
# The base sizes of all three normalise their first convolution over time, the large ones do not.
BASE = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
KINDS = ("WavLM", "Hubert", "Wav2Vec2")


def model_of(kind: str, form: dict[str, object]):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SIZES, **form)
    return getattr(transformers, f"{kind}Model")(config).eval()


def teacher_of(model, **options) -> Teacher:
    """In float64: what differs then differs for a reason."""
    return Teacher(model, **{"sample_rate": 16_000, "frame_rate": 12.5, **options}).double()


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A WavLM and a HuBERT as transformers saves them."""
    root = tmp_path_factory.mktemp("teachers")
    for kind in ("WavLM", "Hubert"):
        model_of(kind, BASE).save_pretrained(root / kind)
    (root / "WavLM" / "preprocessor_config.json").write_text('{"do_normalize": false}')
    return {kind: root / kind for kind in ("WavLM", "Hubert")}


@pytest.fixture
def make(small_config, datasets, folders):
    def task(kind: str | None = "WavLM", **loss: float) -> TokenizerTask:
        torch.manual_seed(0)
        teacher = None
        if kind is not None:
            teacher = Teacher.from_pretrained(folders[kind], sample_rate=RATE, frame_rate=12.5)
        return TokenizerTask(
            ConversationalRVQ(small_config),
            *datasets,
            TokenizerLossConfig(**loss),
            TrainedParts(initialise=True),
            device=torch.device("cpu"),
            teacher=teacher,
        )

    return task


def optimise(task: TokenizerTask, steps: int) -> list[dict[str, float]]:
    optimizer = torch.optim.AdamW(task.trainer.parameters(), 3e-3)
    history = []
    for step in range(1, steps + 1):
        torch.manual_seed(step)
        loss, parts = task.loss("tokenizer", task.trainer, task.batch(step, 0), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        task.after_step(step)
        history.append({name: float(value) for name, value in parts.items()})
    return history


@pytest.mark.parametrize("form", [BASE, LARGE], ids=["base", "large"])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_neighbours_change_nothing_of_a_clip(kind, form):
    teacher = teacher_of(model_of(kind, form), sample_rate=11_025)
    lengths = torch.tensor([11_025, 5_000, 300])
    audio = noise(3, 1, 13_230)
    for row, length in enumerate(lengths.tolist()):
        audio[row, :, length:] = 0
    together = teacher(audio, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = teacher(audio[row : row + 1, :, :length], lengths[row : row + 1])
        frames = alone.known.shape[1]
        assert torch.equal(together.known[row, :frames], alone.known[0])
        assert not together.known[row, frames:].any()
        torch.testing.assert_close(together.features[row, :frames], alone.features[0], atol=1e-11, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_is_taught_the_average_of_its_four_steps_over_all_layers(kind):
    model = model_of(kind, LARGE)
    teacher = teacher_of(copy.deepcopy(model), normalise=False)
    assert (teacher.stride, teacher.field) == (320, 400)
    audio = noise(1, 1, 16_000)
    taught = teacher(audio, torch.tensor([16_000]))
    with torch.no_grad():
        hidden = model.double()(audio[:, 0], output_hidden_states=True).hidden_states
    steps = torch.stack(hidden).mean(dim=0)
    assert steps.shape == (1, 49, 16) and taught.features.shape == (1, 13, 16)
    expected = torch.stack([steps[0, 4 * frame : 4 * frame + 4].mean(dim=0) for frame in range(13)])
    torch.testing.assert_close(taught.features[0], expected, atol=1e-11, rtol=0)
    assert taught.known.all()


def test_the_chosen_layers_alone_are_averaged():
    model, audio = model_of("Hubert", LARGE), noise(1, 1, 5120)
    length = torch.tensor([5120])

    def features(first: int, last: int) -> torch.Tensor:
        config = TeacherConfig(first_layer=first, last_layer=last)
        return teacher_of(copy.deepcopy(model), config=config)(audio, length).features

    torch.testing.assert_close(features(1, 2), (features(1, 1) + features(2, 2)) / 2)
    assert torch.equal(features(0, -1), features(0, 3))
    with pytest.raises(ValueError, match=r"last_layer=4: expected layers from 0 to 3"):
        features(0, 4)
    with pytest.raises(ValueError, match="first_layer <= last_layer"):
        TeacherConfig(first_layer=2, last_layer=1)


def test_clips_are_normalised_as_transformers_does():
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    clips = [noise(16_000).float() + 0.3, noise(9000).float()]
    padded = torch.stack([clips[0], torch.nn.functional.pad(clips[1], (0, 7000))])
    teacher = Teacher(model_of("WavLM", LARGE), sample_rate=16_000, frame_rate=12.5)
    values, samples = teacher._clips(padded, torch.tensor([16_000, 9000]))
    expected = extractor([c.numpy() for c in clips], sampling_rate=16_000, padding=True, return_tensors="pt")
    torch.testing.assert_close(values, expected.input_values, atol=1e-4, rtol=0)
    assert samples.tolist() == expected.attention_mask.sum(dim=1).tolist()


def test_a_folder_s_own_preparation_is_kept(folders):
    teachers = {k: Teacher.from_pretrained(f, sample_rate=RATE, frame_rate=12.5) for k, f in folders.items()}
    assert not teachers["WavLM"].normalise and teachers["Hubert"].normalise
    assert {teacher.width for teacher in teachers.values()} == {16}


def test_a_pickled_model_of_weights_alone_is_read_too(folders, tmp_path):
    """The published WavLM and HuBERT of base size come as pytorch_model.bin."""
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.json").write_bytes((folders["WavLM"] / "config.json").read_bytes())
    state = load_file(folders["WavLM"] / "model.safetensors")
    # As they name the two parts of a normalised weight.
    stem = "encoder.pos_conv_embed.conv."
    for new, old in (("original0", "weight_g"), ("original1", "weight_v")):
        state[stem + old] = state.pop(f"{stem}parametrizations.weight.{new}")
    torch.save(state, folder / "pytorch_model.bin")
    old, new = (
        Teacher.from_pretrained(f, sample_rate=RATE, frame_rate=12.5) for f in (folder, folders["WavLM"])
    )
    assert all(torch.equal(a, b) for a, b in zip(old.parameters(), new.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["WavLM", "Hubert"])
def test_the_semantic_codebooks_learn_the_teacher_s_features(make, kind):
    task = make(kind, quantizer_dropout=0.0)
    history = optimise(task, 25)
    first, last = (sum(h["distillation"] for h in part) / 5 for part in (history[:5], history[-5:]))
    assert last < 0.7 * first
    assert task.validate(25)["distillation"] < first


def test_what_is_taught_reaches_encoder_and_head_and_leaves_the_decoder_alone(make):
    task = make()
    outputs = task._outputs(task.trainer, task.batch(1, 0))
    outputs["distillation"].backward()
    reached = {name for name, p in task.trainer.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"teacher_head.weight", "tokenizer.quantizer.semantic_in.weight"} <= reached
    assert any(name.startswith("tokenizer.encoder.") for name in reached)
    assert not any(
        name.startswith(("tokenizer.decoder.", "tokenizer.quantizer.acoustic")) for name in reached
    )


def test_the_teacher_stays_as_it_was_and_is_neither_trained_nor_saved(make):
    task = make()
    before = copy.deepcopy(task.teacher.state_dict())
    optimise(task, 2)
    assert all(torch.equal(value, before[name]) for name, value in task.teacher.state_dict().items())
    assert not any(p.requires_grad for p in task.teacher.parameters()) and not task.teacher.model.training
    theirs = {id(p) for p in task.teacher.parameters()}
    ours = {id(p) for module in task.modules.values() for p in module.parameters()}
    assert not theirs & ours
    alone = make(None)
    assert task.trainer.state_dict().keys() - alone.trainer.state_dict().keys() == {
        "teacher_head.weight",
        "teacher_head.bias",
    }


def test_a_training_starts_at_the_same_weights_with_and_without_a_teacher(make):
    taught, alone = make().trainer.state_dict(), make(None).trainer.state_dict()
    assert all(torch.equal(value, taught[name]) for name, value in alone.items())


def test_two_taught_trainings_are_equal_bit_for_bit(make):
    one, two = make(), make()
    assert optimise(one, 3) == optimise(two, 3)
    pairs = zip(one.trainer.state_dict().values(), two.trainer.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_what_lies_beyond_an_utterance_teaches_nothing(make):
    task = make()
    task.trainer.eval()
    batch = task.validation.in_order(0, 4)
    more = replace(batch, audio=torch.nn.functional.pad(batch.audio, (0, 6400)))
    with torch.no_grad():
        one, two = (task._outputs(task.trainer, b)["distillation"] for b in (batch, more))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_a_missing_teacher_is_one_error_before_anything_is_loaded(tmp_path, folders, monkeypatch):
    run = replace(recipe("tiny"), corpus=str(tmp_path / "no corpus"), teacher=str(tmp_path / "nowhere"))

    def train() -> None:
        train_tokenizer(run, tmp_path / "output", torch.device("cpu"))

    with pytest.raises(ValueError, match=r"no teacher in .*nowhere: expected a folder with config.json"):
        train()
    run = replace(run, tokenizer_frozen=True)
    with pytest.raises(ValueError, match="tokenizer_frozen=false"):
        train()
    run = replace(run, tokenizer_frozen=False, teacher=str(folders["WavLM"]))
    with pytest.raises(ValueError, match="no corpus"):
        train()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install 'csm-speech\[hf\]'"):
        train()
    assert not (tmp_path / "output").exists()


def test_another_model_and_one_that_is_not_whole_are_refused(folders, tmp_path):
    folder = tmp_path / "teacher"
    folder.mkdir()
    raw = json.loads((folders["WavLM"] / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"model_type": "bert"}))
    state = load_file(folders["WavLM"] / "model.safetensors")
    lacking = {k: v for k, v in state.items() if k not in ("masked_spec_embed", "encoder.layer_norm.weight")}
    save_file(lacking, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="is a 'bert': expected one of wavlm, hubert, wav2vec2"):
        require_teacher(folder)
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=r"lacks 1 weights, encoder.layer_norm.weight among them"):
        Teacher.from_pretrained(folder, sample_rate=RATE, frame_rate=12.5)
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="cannot be read"):
        Teacher.from_pretrained(folder, sample_rate=RATE, frame_rate=12.5)
