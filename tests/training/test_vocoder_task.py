"""The task of a tokenizer with a vocoder: codes are fitted once, the decoder learns, the vocoder stays."""

import copy
import dataclasses

import pytest
import torch

from csm.data.manifest import Corpus
from csm.data.utterances import UtteranceConfig, UtteranceDataset
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.training.losses import TokenizerLossConfig
from csm.training import tokenizer_task
from csm.training.tokenizer_task import TokenizerTask
from tests.small_vocoder_tokenizer import CONFIG, FRAME, RATE


@pytest.fixture(scope="module")
def corpus(datasets) -> Corpus:
    """The tones of `datasets`, read at 24 kHz."""
    return datasets[0].sounds.corpus


@pytest.fixture
def make(corpus, monkeypatch):
    monkeypatch.setattr(tokenizer_task, "FEATURE_BATCHES", 2)

    def task(*, decoder_only=False, **loss) -> TokenizerTask:
        config = UtteranceConfig(items=4, slice_frames=4)
        options = {"sample_rate": RATE, "samples_per_frame": FRAME, "seed": 0, "micro_batches": 1}
        torch.manual_seed(0)
        tokenizer = ConversationalRVQ(CONFIG)
        tokenizer.quantizer.semantic.codebooks.normal_()
        return TokenizerTask(
            tokenizer,
            *(UtteranceDataset(corpus, part, config=config, **options) for part in ("train", "validation")),
            TokenizerLossConfig(**loss),
            initialise=not decoder_only,
            decoder_only=decoder_only,
            device=torch.device("cpu"),
        )

    return task


def optimise(task: TokenizerTask, steps: int) -> list[dict[str, float]]:
    parameters = [p for p in task.trainer.parameters() if p.requires_grad]
    optimizer, history = torch.optim.AdamW(parameters, 3e-3), []
    for step in range(1, steps + 1):
        loss, parts = task.loss("tokenizer", task.trainer, task.batch(1, 0), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert task.after_step(step) == {}, "codes are final: no codebook is updated"
        history.append({name: float(part) for name, part in parts.items()})
    return history


@pytest.mark.parametrize("decoder_only", [False, True])
def test_the_decoder_learns_and_neither_codes_nor_vocoder_change(make, decoder_only):
    task = make(decoder_only=decoder_only)
    tokenizer = task.trainer.tokenizer
    before = copy.deepcopy(tokenizer.state_dict())
    history = optimise(task, 6)
    assert history[-1]["vocoder"] < history[0]["vocoder"]
    assert set(history[0]) == ({"vocoder"} if decoder_only else {"vocoder", "speaker", "emotion"})
    state = tokenizer.state_dict()
    changed = {name for name, value in state.items() if not torch.equal(value, before[name])}
    kept = ("encoder.", "quantizer.", "semantic_encoder.", "decoder.head.")
    assert not [name for name in changed if name.startswith(kept)]
    for part in ("decoder.blocks.", "decoder.feature_head.frame.", "decoder.feature_head.correction."):
        assert [name for name in changed if name.startswith(part)], part
    assert not changed & {"decoder.feature_head.centre", "decoder.feature_head.scale"}


def test_what_is_watched_and_validated_is_the_distance_of_features(make):
    task = make()
    assert task.watched == "vocoder" and "tokenizer/vocoder" in task.headline
    assert not [name for name in task.headline if name.endswith(("mel", "magnitude"))]
    found = task.validate(0)
    assert set(found) == {"vocoder", "commitment", "prediction"} and 0 < found["vocoder"] < 2
    for name, (clip, rate) in task.samples(0).items():
        assert rate == RATE and clip.shape == task.originals()[name][0].shape


def test_the_compared_features_are_the_encoders_and_padding_counts_in_nothing(make):
    task = make()
    trainer = task.trainer.eval()
    batch = task.validation.in_order(0, 4)
    longer = dataclasses.replace(batch, audio=torch.nn.functional.pad(batch.audio, (0, 2 * FRAME)))
    with torch.no_grad():
        one, two = (trainer(part, task.weights, 4) for part in (batch, longer))
        latent, _ = trainer.tokenizer.encoder(batch.audio[:, 0])
    assert torch.equal(one["target"].flatten(), latent.flatten())
    torch.testing.assert_close(one["vocoder"], two["vocoder"], atol=1e-5, rtol=1e-5)
    # Steps that begin inside an utterance count, each of 22 features alike.
    distance = (one["output"] - one["target"]).abs()
    parts = [item[: -(-int(size) // 240)] for item, size in zip(distance, batch.lengths, strict=True)]
    torch.testing.assert_close(one["vocoder"], torch.cat(parts).mean())


def test_discriminators_are_refused(make):
    with pytest.raises(ValueError, match="tokenizer_loss.adversarial with tokenizer.vocoder: .* set it to 0"):
        make(adversarial=1.0)
