"""What a recipe promises beside its figures: it can be had by name, and its parts fit together."""

import inspect
from dataclasses import replace

import pytest
import torch

from csm.audio.files import write_audio
from csm.cli.options import recipe_lines
from csm.data.manifest import Conversation, Corpus, Turn
from csm.data.utterances import UtteranceDataset
from csm.recipes.named import RECIPES, recipe
from csm.tokenizer import presets
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.training.tokenizer_task import TokenizerTask, TrainedParts


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    """Noise of two speakers at 24 kHz, four turns of 0.5 s in each split."""
    conversations = []
    for split in ("train", "validation"):
        turns = []
        for index in range(4):
            name = f"{split}{index}"
            noise = torch.randn(1, 12_000, generator=torch.Generator().manual_seed(index)) * 0.1
            write_audio(tmp_path / f"{name}.wav", noise, 24_000)
            kept = {"conversation": split, "index": index, "speaker": "AB"[index % 2], "text": "yes"}
            turns.append(Turn(id=name, audio=f"{name}.wav", end=0.5, **kept))
        conversations.append(Conversation(id=split, split=split, turns=tuple(turns)))
    return Corpus(root=tmp_path, conversations=tuple(conversations))


def test_every_recipe_has_its_name_and_its_model_fits_its_tokenizer():
    for name in RECIPES:
        run = recipe(name)
        assert run.recipe == name
        if run.model_start == "scratch":
            assert run.model.num_codebooks <= run.tokenizer.n_codebooks
            assert run.model.codebook_size == run.tokenizer.codebook_size


def test_every_recipe_states_its_hardware_and_its_time_on_a_line_each():
    for name, make in RECIPES.items():
        lines = [line.strip() for line in inspect.getdoc(make).splitlines()]
        for head in ("Hardware: ", "Time: "):
            assert sum(line.startswith(head) for line in lines) == 1, f"{name}: {head}"


def test_an_unknown_recipe_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean speech_24khz"):
        recipe("speech_24")


def test_speech_24khz_trains_the_24_khz_size_in_bf16_with_discriminators_after_a_warm_up():
    run = recipe("speech_24khz")
    assert run.tokenizer == presets.speech_24khz()
    assert run.tokenizer_training.precision == "bf16"
    loss, training = run.tokenizer_loss, run.tokenizer_training
    assert loss.adversarial > 0 and training.warmup_steps < loss.adversarial_start < training.steps
    # The oldest frames that attention sees must come up in training.
    assert run.utterances.max_seconds * run.tokenizer.frame_rate >= run.tokenizer.attention_frames


def test_speech_24khz_takes_a_step_of_tokenizer_and_discriminators(corpus):
    run = recipe("speech_24khz")
    torch.manual_seed(0)
    tokenizer = ConversationalRVQ(run.tokenizer)
    config = replace(run.utterances, items=2, max_seconds=0.4, slice_frames=4)
    sizes = {
        "sample_rate": 24_000,
        "samples_per_frame": 1920,
        "config": config,
        "seed": 0,
        "micro_batches": 1,
    }
    data = [UtteranceDataset(corpus, split, **sizes) for split in ("train", "validation")]
    loss = replace(run.tokenizer_loss, adversarial_start=1)
    task = TokenizerTask(tokenizer, *data, loss, TrainedParts(initialise=True), device=torch.device("cpu"))
    before = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    batch = task.batch(1, 0)
    for name, module in task.modules.items():
        total, parts = task.loss(name, module, batch, 1)
        assert torch.isfinite(torch.stack(list(parts.values()))).all()
        total.backward()
        torch.optim.SGD(module.parameters(), 1e-4).step()
    task.after_step(1)
    after = tokenizer.state_dict()
    assert not torch.equal(after["encoder.shortcut.weight"], before["encoder.shortcut.weight"])
    assert not torch.equal(after["quantizer.semantic.codebooks"], before["quantizer.semantic.codebooks"])
    assert all(value.isfinite().all() for value in after.values())


def test_the_help_of_commands_lists_the_hardware_and_the_time_of_every_recipe():
    blocks = {}
    for line in recipe_lines():
        name, fact = line.strip(), line.startswith(6 * " ")
        if not fact:
            facts = blocks[name] = []
        else:
            facts.append(name)
    assert set(blocks) == set(RECIPES)
    for name, facts in blocks.items():
        for head in ("Hardware: ", "Time: "):
            assert sum(fact.startswith(head) for fact in facts) == 1, f"{name}: {head}"
