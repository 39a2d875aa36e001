"""The task of a tokenizer with a vocoder: codes are fitted once, the decoder learns, the vocoder stays."""

import copy
import dataclasses

import pytest
import torch

from csm.data.manifest import Corpus
from csm.data.utterances import UtteranceConfig, UtteranceDataset
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.training.adversarial_losses import adversarial_loss
from csm.tokenizer.training.losses import TokenizerLossConfig
from csm.training import coded_utterances, tokenizer_task
from csm.training.coded_utterances import CodedUtterances
from csm.training.tokenizer_task import TokenizerTask, TrainedParts
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
            TrainedParts(initialise=not decoder_only, decoder_only=decoder_only),
            device=torch.device("cpu"),
        )

    return task


def optimise(task: TokenizerTask, steps: int) -> list[dict[str, float]]:
    optimizers = {
        name: torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], 3e-3)
        for name, module in task.modules.items()
    }
    history = []
    for step in range(1, steps + 1):
        batch, found = task.batch(1, 0), {}
        for name, module in task.modules.items():
            loss, parts = task.loss(name, module, batch, step)
            optimizers[name].zero_grad()
            loss.backward()
            optimizers[name].step()
            found |= {part: float(value) for part, value in parts.items()}
        assert task.after_step(step) == {}, "codes are final: no codebook is updated"
        history.append(found)
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
    for found, encoded, length in zip(one["target"], latent, batch.lengths, strict=True):
        steps = -(-int(length) // 240)
        assert torch.equal(found[:steps], encoded.reshape(-1, 22)[:steps]) and not found[steps:].any()
    torch.testing.assert_close(one["vocoder"], two["vocoder"], atol=1e-5, rtol=1e-5)
    # Steps that begin inside an utterance count, each of 22 features alike.
    distance = (one["output"] - one["target"]).abs()
    parts = [item[: -(-int(size) // 240)] for item, size in zip(distance, batch.lengths, strict=True)]
    torch.testing.assert_close(one["vocoder"], torch.cat(parts).mean())


@pytest.mark.parametrize("decoder_only", [False, True])
def test_a_decoder_is_trained_against_discriminators_of_its_features(make, decoder_only):
    """Both paths of its head have the gradient, and what is beyond an utterance has none."""
    task = make(decoder_only=decoder_only, adversarial=1.0)
    before = copy.deepcopy(task.modules["discriminator"].state_dict())
    history = optimise(task, 2)
    assert all(0 < step["hinge"] < 10 and 0 < step["feature_matching"] < 10 for step in history)
    after = task.modules["discriminator"].state_dict()
    assert not any(torch.equal(after[name], value) for name, value in before.items() if value.ndim > 1)
    batch = task.batch(1, 0)
    outputs = task.trainer(batch, task.weights, 4)
    loss = adversarial_loss(task.modules["discriminator"](outputs["output"]))
    head = task.trainer.tokenizer.decoder.feature_head
    gradients = torch.autograd.grad(
        loss, [head.frame.weight, head.correction.weight, outputs["balanced"]], allow_unused=False
    )
    assert all(gradient.any() for gradient in gradients)
    for gradient, output, target, length in zip(
        gradients[2], outputs["output"], outputs["target"], batch.lengths, strict=True
    ):
        beyond = slice(-(-int(length) // 240), None)
        assert not gradient[beyond].any() and not output[beyond].any() and not target[beyond].any()


def test_a_frozen_decoders_batches_are_encoded_once_and_cut_at_frames(make, monkeypatch):
    task = make(decoder_only=True)
    assert task.coded is not None and make().coded is None
    batch, tokenizer = task.batch(1, 0), task.trainer.tokenizer
    batch.first_sample[0] = FRAME
    coded = task.coded(batch)
    for row, name in enumerate(batch.ids):
        samples = task.train.sounds[[t.id for t in task.train.turns].index(name)].samples.float() / 32767
        codes, info = tokenizer.encode(samples.view(1, 1, -1))
        first = 1 if row == 0 else 0
        count = int(coded.frames[row])
        assert count == min(batch.audio.shape[2] // FRAME, codes.shape[2] - first)
        assert torch.equal(coded.codes[row, :, :count], codes[0, :, first : first + count])
        torch.testing.assert_close(coded.speaker[row], info.speaker[0])
        latent, _ = tokenizer.encoder(tokenizer.pad_to_frames(samples.view(1, 1, -1))[:, 0])
        target = latent[0, first : first + count].reshape(8 * count, -1)
        torch.testing.assert_close(coded.target[row, : 8 * count], target, atol=2e-3, rtol=2e-3)
        assert not coded.target[row, 8 * count :].any() and not coded.codes[row, :, count:].any()
    # A turn that is drawn again is not encoded again.
    monkeypatch.setattr(task.coded, "_encode", lambda samples: pytest.fail("encoded again"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = task.coded(batch)
    assert all(torch.equal(a, b) for a, b in zip(coded, again, strict=True))


def test_encoded_turns_beyond_the_memory_for_them_are_encoded_again(make, monkeypatch):
    task = make(decoder_only=True)
    whole = task.coded(task.batch(1, 0))
    monkeypatch.setattr(coded_utterances, "KEPT_BYTES", 1)
    few = make(decoder_only=True)
    assert all(torch.equal(a, b) for a, b in zip(whole, few.coded(few.batch(1, 0)), strict=True))
    assert len(few.coded._kept) == 1


@pytest.mark.parametrize("dropped", [0.0, 1.0])
def test_codes_give_the_loss_that_sound_gives(make, dropped):
    """Of whole turns without gain, decoded from all codebooks, with their embeddings and without."""
    task = make(decoder_only=True, condition_dropout=dropped)
    trainer, batch = task.trainer.eval(), task.validation.in_order(0, 4)
    coded = CodedUtterances(trainer.tokenizer, task.validation)(batch)
    for row, name in enumerate(batch.ids):
        place = [t.id for t in task.validation.turns].index(name)
        batch.audio[row, 0, : batch.lengths[row]] = task.validation.sounds[place].samples.float() / 32767
    with torch.no_grad():
        ours, theirs = trainer(batch, task.weights, 4, None, coded), trainer(batch, task.weights, 4)
    assert float(ours["vocoder"]) == pytest.approx(float(theirs["vocoder"]), rel=0.02)
    assert (ours["levels"] == CONFIG.n_codebooks).all()


def test_items_are_decoded_from_what_a_voice_predicts_in_their_share(make, monkeypatch):
    task = make(decoder_only=True, predicted_share=0.5, quantizer_dropout=0.9)
    known = [turn.id for turn in task.train.turns[:5]]

    def predicts(name):
        if name not in known:
            return None
        return torch.full((3, task.coded._coded(known.index(name)).codes.shape[1]), 1)

    own = CodedUtterances(task.trainer.tokenizer, task.train)
    predicting = CodedUtterances(task.trainer.tokenizer, task.train, predicts)
    seen = []
    decode = task.trainer.tokenizer.quantizer.decode
    monkeypatch.setattr(
        task.trainer.tokenizer.quantizer, "decode", lambda codes: (seen.append(codes), decode(codes))[1]
    )
    for step in range(4):
        batch = task.batch(1 + step, 0)
        plain, coded = own(batch), predicting(batch)
        assert torch.equal(plain.codes, coded.codes) and torch.equal(plain.codes, plain.predicted)
        for row, name in enumerate(batch.ids):
            count = int(coded.frames[row])
            given = coded.predicted[row, :, :count]
            assert (
                (given[:3] == 1).all() if name in known else torch.equal(given, coded.codes[row, :, :count])
            )
            assert torch.equal(given[3:], coded.codes[row, 3:, :count])
        seen.clear()
        task.trainer.train()(batch, task.weights, 4, None, coded)
        for row, codes in enumerate(seen):
            if float(batch.levels[row, 2]) < 0.5:
                assert torch.equal(codes[0], coded.predicted[row])
            else:
                assert torch.equal(codes[0], coded.codes[row, : codes.shape[1]])
        seen.clear()
        task.trainer.eval()(batch, task.weights, 4, None, coded)
        assert torch.equal(torch.cat(seen), coded.codes)


def test_a_voice_may_predict_only_where_turns_are_encoded_once(corpus, make):
    task = make(decoder_only=True)
    parts = (task.trainer.tokenizer, task.train, task.validation, task.weights)
    decoder = TrainedParts(initialise=False, decoder_only=True)
    options = {"device": torch.device("cpu"), "predicts": lambda name: None}
    with pytest.raises(ValueError, match="predicting_voice is given: expected .* tokenizer_frozen=true"):
        TokenizerTask(*parts, TrainedParts(initialise=False), **options)
    with pytest.raises(ValueError, match="zero_stage below 3"):
        TokenizerTask(*parts, dataclasses.replace(decoder, encode_once=False), **options)
    fast = dataclasses.replace(task.train.config, speeds=(0.9, 1.0))
    faster = UtteranceDataset(
        corpus, "train", config=fast, sample_rate=RATE, samples_per_frame=FRAME, seed=0, micro_batches=1
    )
    with pytest.raises(ValueError, match="utterances without speeds"):
        TokenizerTask(parts[0], faster, *parts[2:], decoder, **options)
    assert TokenizerTask(parts[0], faster, *parts[2:], decoder, device=torch.device("cpu")).coded is None


def test_semantic_codes_alone_are_decoded_from_their_share(make):
    task = make(decoder_only=True, quantizer_dropout=0.25, semantic_only=0.5)
    draws = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0))
    levels = task.trainer.train()._draw_levels(draws, task.weights)
    semantic, count = CONFIG.semantic_codebooks, CONFIG.n_codebooks
    assert 0.48 < float((levels[draws[:, 0] >= 0.25] == semantic).float().mean()) * 0.75 < 0.52
    assert (levels[(draws[:, 0] >= 0.25) & (draws[:, 0] < 0.5)] == count).all()
    assert (task.trainer.eval()._draw_levels(draws, task.weights) == count).all()
    # What is learned of the semantic codes alone shows where these are decoded.
    distances = []
    for share in (1.0, 0.0):
        task = make(decoder_only=True, quantizer_dropout=0.0, semantic_only=share)
        task.trainer.train()
        optimise(task, 60)
        distances.append(decoded_distance(task))
    assert distances[0] < 0.95 * distances[1]
    with pytest.raises(ValueError, match="quantizer_dropout is 0.6, semantic_only 0.5: expected shares"):
        TokenizerLossConfig(quantizer_dropout=0.6, semantic_only=0.5)


@torch.no_grad()
def decoded_distance(task: TokenizerTask) -> float:
    """Mean distance of features of a training batch that is decoded from its semantic codes."""
    batch, tokenizer = task.batch(1, 0), task.trainer.tokenizer
    coded = task.coded(batch)
    latent = tokenizer.quantizer.decode(coded.codes[:, : CONFIG.semantic_codebooks])
    known = tokenizer.decoder.frames(latent, tokenizer.condition(len(latent), coded.speaker, coded.emotion))
    found = tokenizer.decoder.feature_head(known, tokenizer.decoder.features(known))
    inside = torch.arange(found.shape[1]) < 8 * coded.frames.unsqueeze(1)
    return float((found - coded.target)[inside].abs().mean())
