"""The alignment kit on a foreign model: transformers' CSM, generating, training, accumulating gradients."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.parity.logits import CodeLogits, StepLoss, align, weigh

transformers = pytest.importorskip("transformers")

TEXT, AUDIO, END = 1, 2, 3  # ids of a letter, of a frame and of an end row
IGNORED = -100


class Spoken(NamedTuple):
    """A text, the frames int64 [T, K] that follow it, and which of them and of the end train the depth."""

    prompt: list[int]
    frames: Tensor
    depth: Tensor


class TransformersAdapter:
    """Speaks with `generate`; trains as Trainer does, or with the mean of the micro-batches' losses.

    Args:
        model: CsmForConditionalGeneration.
        as_trainer: Whether the loss is divided by the labels of the step, `num_items_in_batch`, as
            transformers' Trainer has it for every model that takes it (5.23, at any accumulation).
    """

    def __init__(self, model: Any, *, as_trainer: bool = True) -> None:
        self.model, self.as_trainer = model, as_trainer

    def inputs(self, batch: Sequence[Spoken]) -> dict[str, Tensor]:
        """Rows padded on the right, as embeddings, so that no codec is needed; labels [B, R, K]."""
        books = self.model.config.num_codebooks
        longest = max(len(item.prompt) + len(item.frames) + 1 for item in batch)
        rows = torch.zeros(len(batch), longest, self.model.config.hidden_size)
        seen = torch.zeros(len(batch), longest, dtype=torch.int64)
        labels = torch.full((len(batch), longest, books), IGNORED)
        for index, (prompt, frames, depth) in enumerate(batch):
            voice = torch.cat([frames, torch.zeros(1, books, dtype=torch.int64)])
            text, end = len(prompt), len(prompt) + len(voice)
            rows[index, :text] = self.model.embed_text_tokens(torch.tensor(prompt))
            rows[index, text:end] = self.model.backbone_model.embed_tokens(voice[None])[0]
            seen[index, :end] = 1
            labels[index, text:end] = voice
            labels[index, text:end, 1:][~depth] = IGNORED
        return {"inputs_embeds": rows, "attention_mask": seen, "labels": labels}

    def teacher_forced_logits(self, batch: Sequence[Spoken]) -> CodeLogits:
        inputs = self.inputs(batch)
        labels = inputs["labels"]
        output = self.model(**inputs)
        first = (labels[:, :, 0] != IGNORED).nonzero()
        depth = (labels[:, :, 1] != IGNORED).nonzero()
        books = labels.shape[2]
        before = torch.tensor([0, 1])
        later = F.pad(depth - before, (0, 1)).repeat_interleave(books - 1, dim=0)
        later[:, 2] = torch.arange(1, books).repeat(len(depth))
        places = torch.cat([F.pad(first - before, (0, 1)), later])
        first_codes, later_codes = labels[(*first.T, 0)], labels[(*depth.T, slice(1, None))]
        codes = torch.cat([first_codes, later_codes.flatten()])
        at_rows = output.logits[first[:, 0], first[:, 1] - 1]
        return CodeLogits(places, codes, torch.cat([at_rows, output.depth_decoder_logits.flatten(0, 1)]))

    def stepwise_logits(self, batch: Sequence[Spoken]) -> CodeLogits:
        entries: list[tuple[int, int, int, int, Tensor]] = []
        for index, item in enumerate(batch):
            script = F.pad(item.frames, (0, 0, 0, 1))
            entries += [(index, *entry) for entry in self.speak(item.prompt, script)]
        places, codes = torch.tensor([e[:3] for e in entries]), torch.tensor([e[3] for e in entries])
        return CodeLogits(places, codes, torch.stack([e[4] for e in entries]))

    def speak(self, prompt: list[int], script: Tensor) -> list[tuple[int, int, int, Tensor]]:
        """Greedy generation, steered at the heads to the script's codes; every logit as it was before."""
        seen: list[tuple[int, int, int, Tensor]] = []
        rows, frame, book = 0, -1, 0

        def saw_rows(module: Any, inputs: Any, output: Any) -> None:
            nonlocal rows
            rows += output.last_hidden_state.shape[1]

        def head(module: Any, inputs: Any, found: Tensor) -> Tensor:
            nonlocal frame, book
            frame, book = (frame + 1, 0) if module is self.model.lm_head else (frame, book + 1)
            code = int(script[frame, book])
            seen.append((rows - 1, book, code, found[0, -1].clone()))
            return torch.full_like(found, -1e9).index_fill(-1, torch.tensor([code]), 0.0)

        parts = (self.model.lm_head, self.model.depth_decoder.codebooks_head)
        hooks = [self.model.backbone_model.register_forward_hook(saw_rows)]
        hooks += [part.register_forward_hook(head) for part in parts]
        ids = torch.tensor([prompt])
        try:
            said = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=len(script),
                do_sample=False,
                depth_decoder_do_sample=False,
            )
        finally:
            for hook in hooks:
                hook.remove()
        assert torch.equal(said[0], script)
        return seen

    def step_loss(self, micro_batches: Sequence[Sequence[Spoken]]) -> StepLoss:
        inputs = [self.inputs(batch) for batch in micro_batches]
        # Trainer._get_num_items_in_batch: labels of the step, which the processor gives one per row.
        items = sum(int((x["labels"][:, 1:, 0] != IGNORED).sum()) for x in inputs)
        options = {"num_items_in_batch": items} if self.as_trainer else {}
        outputs = [self.model(**x, **options) for x in inputs]
        divisor = 1 if self.as_trainer else len(inputs)
        parts = [[o.loss, o.backbone_loss, o.depth_decoder_loss] for o in outputs]
        return StepLoss(*(sum(part) / divisor for part in zip(*parts, strict=True)))


@pytest.fixture(scope="module")
def theirs() -> Any:
    """A small random model of csm-1b's 32 codebooks."""
    shape = {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 48, "vocab_size": 35}
    codec = {"model_type": "mimi", "hidden_size": 32, "num_filters": 4, "codebook_size": 32}
    codec |= {"codebook_dim": 16, "vector_quantization_hidden_dimension": 16, "num_quantizers": 32}
    codec |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    depth = {**shape, "hidden_size": 24, "backbone_hidden_size": 32, "num_hidden_layers": 1}
    depth |= {"num_codebooks": 32, "max_position_embeddings": 33}
    config = transformers.CsmConfig(
        **shape,
        hidden_size=32,
        num_hidden_layers=2,
        num_codebooks=32,
        text_vocab_size=16,
        bos_token_id=0,
        pad_token_id=1,
        codebook_pad_token_id=34,
        audio_token_id=AUDIO,
        audio_eos_token_id=END,
        depth_decoder_config=depth,
        codec_config={**codec, "intermediate_size": 32, "upsample_groups": 32, "sliding_window": 20},
    )
    torch.manual_seed(0)
    model = transformers.CsmForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "codec" not in name:
                fan_in = parameter.shape[-2] if "codebooks_head" in name else parameter.shape[-1]
                parameter.copy_(torch.randn_like(parameter) * (0.3 if "embed" in name else fan_in**-0.5))
    return model


def spoken(frames: int, drawn: Sequence[int] | None = None, seed: int = 0) -> Spoken:
    """A turn of random codes, none of which is an end; `drawn` of its frames and end train the depth."""
    generator = torch.Generator().manual_seed(seed + frames)
    depth = torch.ones(frames + 1, dtype=torch.bool)
    if drawn is not None:
        depth = torch.zeros_like(depth).index_fill(0, torch.tensor(drawn, dtype=torch.int64), True)
    codes = torch.randint(1, 32, (frames, 32), generator=generator)
    return Spoken([0, *torch.randint(4, 16, (3 + frames,), generator=generator).tolist()], codes, depth)


def flat(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cross-entropy is ln 35, so that weights are exact however few frames are drawn."""
    for weight in (model.lm_head.weight, model.depth_decoder.codebooks_head.weight):
        monkeypatch.setattr(weight, "data", torch.zeros_like(weight))


def test_transformers_training_equals_its_generation(theirs) -> None:
    """In a padded batch of two lengths, all frames and a share of them."""
    adapter = TransformersAdapter(theirs)
    report = align(adapter, [spoken(2), spoken(3)])
    assert report.equal and report.untaught == 0 and report.compared == 7 * 32, report
    report = align(adapter, [spoken(2, [1]), spoken(3, [0, 3])])
    assert report.equal and report.untaught == 0 and report.compared == 7 + 3 * 31, report


def test_a_hidden_state_off_by_one_is_caught_in_transformers_too(theirs) -> None:
    def late(module: Any, inputs: Any, named: dict) -> tuple[Any, dict]:
        # Only in training: the generator asks without labels.
        if named.get("labels") is not None:
            hidden = named["backbone_last_hidden_state"]
            named = {**named, "backbone_last_hidden_state": hidden.roll(1, 0)}
        return inputs, named

    item = spoken(2)
    hook = theirs.depth_decoder.register_forward_pre_hook(late, with_kwargs=True)
    try:
        report = align(TransformersAdapter(theirs), [item])
    finally:
        hook.remove()
    assert report.first[:4] == ("logits", 0, len(item.prompt) - 1, 1) and report.by_codebook[0] < 1e-4


@pytest.mark.parametrize(
    ("drawn", "accumulated"), [(32, 1), (32, 2), (32, 4), (8, 1), (8, 2), (8, 4), (2, 1), (2, 2)]
)
def test_transformers_trainer_weighs_depth_31_times_the_ratio(
    theirs, monkeypatch, drawn, accumulated
) -> None:
    """Measured over a step of 32 frames and ends: 31 at ratio 1, 1.94 at 1/16, where csm-1b has 1."""
    flat(theirs, monkeypatch)
    # Four turns of 7 frames and an end; the frames that train the depth are spread over them.
    step = [spoken(7, range(index, drawn, 4)) if drawn < 32 else spoken(7) for index in range(4)]
    weights = weigh(TransformersAdapter(theirs), [step[start::accumulated] for start in range(accumulated)])
    assert weights == pytest.approx((1.0, 31 * drawn / 32, 0.0), abs=1e-4)


def test_without_the_count_of_the_step_transformers_weights_depend_on_how_it_is_split(theirs) -> None:
    """One micro-batch: 1 and 1. Two of 3 and 11 rows: a target of the short one weighs 11 thirds."""
    adapter = TransformersAdapter(theirs, as_trainer=False)
    together = weigh(adapter, [[spoken(2), spoken(10)]])
    assert together == pytest.approx((1.0, 1.0, 0.0), abs=1e-4)
    apart = weigh(adapter, [[spoken(2)], [spoken(10)]])
    assert abs(apart.codebook0 - 1) > 1e-2
