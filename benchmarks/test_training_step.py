"""A training step (forward, backward, fused AdamW) against transformers' CSM with the same weights."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from csm.losses import ConversationTargets, LossConfig, conversational_loss
from csm.model import CSMModel
from csm.network.execution import ExecutionConfig, apply_execution
from csm.sequences.packed_batch import IGNORE
from csm.sequences.turns import TurnFrames
from csm.text import ByteCodec

PEER, COMPILED, HALF = "transformers", "csm compiled", "csm bf16"
# Without these instructions bf16 products are emulated, several times slower than fp32.
HAS_BF16 = (
    torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
)
VOICE_ONLY = LossConfig(text=0.0, pitch=0.0, voicing=0.0, energy=0.0, duration=0.0)
CODES, CODEBOOKS = 2048, 32
# Name -> frames of the turns, share of frames that train the depth decoder, target ratio of times.
BATCHES = {
    "2 x 256 frames, ratio 1": ((256, 256), 1.0, 2.0),
    "2 x 256 frames, ratio 1/16": ((256, 256), 1 / 16, 1.4),
    "16 turns of 20-250 frames, ratio 1/16": (None, 1 / 16, 2.5),
}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """Returns the loader and the folder of a random CSM, width 512 x 6 and 256 x 2, 32 codebooks of 2051."""
    transformers = pytest.importorskip("transformers")
    rope = {"rope_type": "default", "rope_theta": 500_000.0}
    shared = {"vocab_size": CODES + 3, "num_codebooks": CODEBOOKS, "rope_parameters": rope}
    depth = {
        "hidden_size": 256, "backbone_hidden_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 1024, "max_position_embeddings": CODEBOOKS + 1,
        **shared,
    }  # fmt: skip
    codec = {
        "model_type": "mimi", "hidden_size": 32, "num_filters": 4, "codebook_size": CODES, "codebook_dim": 16,
        "vector_quantization_hidden_dimension": 16, "num_quantizers": CODEBOOKS, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 32,
        "upsample_groups": 32,
    }  # fmt: skip
    config = transformers.CsmConfig(
        hidden_size=512, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=2,
        intermediate_size=2048, text_vocab_size=ByteCodec().vocab_size, bos_token_id=0, pad_token_id=1,
        codebook_pad_token_id=CODES + 2, audio_token_id=2, audio_eos_token_id=3,
        depth_decoder_config=depth, codec_config=codec, **shared,
    )  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("csm")
    transformers.CsmForConditionalGeneration(config).save_pretrained(folder)
    # Loaded again for every kind of batch, because the timed steps change the weights.
    return transformers.CsmForConditionalGeneration.from_pretrained, folder


def batch_of(model: CSMModel, lengths, ratio: float):
    """Returns a batch of one spoken turn per sequence; the depth decoder's frames are a random subset."""
    generator = torch.Generator().manual_seed(1)
    lengths = lengths or torch.randint(20, 251, (16,), generator=generator).tolist()
    rows = model.new_rows()
    for index, length in enumerate(lengths):
        codes = torch.randint(1, CODES, (CODEBOOKS, length), generator=generator)
        rows.begin_sequence()
        rows.add_spoken(TurnFrames(f"turn {index}", "hello there", 0, codes))
    batch = rows.build()
    frames = batch.trained_frames()
    drawn = torch.randperm(len(frames), generator=generator)[: round(ratio * len(frames))]
    return replace(batch, depth_rows=frames[drawn.sort().values]), sum(lengths)


def padded(batch) -> dict[str, torch.Tensor]:
    """Returns the same rows for transformers: padded, labels shifted by one, other frames ignored."""
    ends = batch.cu_seqlens.tolist()
    shape = len(ends) - 1, batch.longest
    text, mask = torch.full(shape, -1), torch.zeros(shape, dtype=torch.int64)
    codes, labels = torch.full((*shape, CODEBOOKS), -1), torch.full((*shape, CODEBOOKS), IGNORE)
    target = batch.code_target.clone()
    left_out = torch.ones(len(target), dtype=torch.bool).index_fill(0, batch.depth_rows, False)
    target[left_out, 1:] = IGNORE
    for index, (start, end) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
        count = end - start
        text[index, :count], codes[index, :count] = batch.text[start:end], batch.codes[start:end]
        labels[index, 1:count], mask[index, :count] = target[start : end - 1], 1
    return {"text": text, "codes": codes, "labels": labels, "mask": mask}


def their_loss(model, inputs) -> torch.Tensor:
    words = model.embed_text_tokens(inputs["text"].clamp_min(0))
    frames = model.backbone_model.embed_tokens(inputs["codes"].clamp_min(0))
    rows = torch.where((inputs["text"] >= 0)[..., None], words, frames)
    return model(inputs_embeds=rows, attention_mask=inputs["mask"], labels=inputs["labels"]).loss


def our_loss(model: CSMModel, batch, half: bool) -> torch.Tensor:
    with torch.autocast(batch.text.device.type, torch.bfloat16, enabled=half):
        output = model(batch=batch, label_smoothing=0.0)
    return conversational_loss(output, ConversationTargets.of(batch, 1), VOICE_ONLY).total


def prepared(name, loss, optimizer):
    if name == HALF and not HAS_BF16:
        raise RuntimeError("this CPU has no bf16 products")
    call = partial(step, optimizer, loss)
    call()  # compiles, and creates the moments of the optimizer
    return call


def step(optimizer, loss) -> None:
    loss().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("name", ["csm", COMPILED, PEER, HALF])
@pytest.mark.parametrize("kind", BATCHES)
def test_training_step(name, kind, device, compare, theirs):
    lengths, ratio, bar = BATCHES[kind]
    read_theirs, folder = theirs
    _, frames = batch_of(CSMModel.from_pretrained(folder, text="bytes"), lengths, ratio)

    def contenders():
        calls = {}
        for contender in ("csm", COMPILED, HALF):
            model = CSMModel.from_pretrained(folder, text="bytes").to(device).train()
            apply_execution(
                model, ExecutionConfig(compile="blocks" if contender == COMPILED else "nothing"), zero_stage=0
            )
            batch, _ = batch_of(model, lengths, ratio)
            loss = partial(our_loss, model, batch.to(device), contender == HALF)
            calls[contender] = loss, torch.optim.AdamW(model.parameters(), 1e-6, fused=True)
        their_model = read_theirs(folder).to(device).train()
        inputs = {key: value.to(device) for key, value in padded(batch).items()}
        trained = [p for n, p in their_model.named_parameters() if not n.startswith("codec_model")]
        loss = partial(their_loss, their_model, inputs)
        expected = float(loss().detach())
        for contender in ("csm", COMPILED):
            ours = float(calls[contender][0]().detach())
            assert abs(ours - expected) <= 1e-5 * abs(expected), (
                f"{contender} {ours}, transformers {expected}"
            )
        calls[PEER] = loss, torch.optim.AdamW(trained, 1e-6, fused=True)
        return {key: partial(prepared, key, *pair) for key, pair in calls.items()}

    # Weights used per row by both transformers and the heads; three products: one forward, two backward.
    backbone = 6 * (2 * 512 * 512 + 2 * 512 * 128 + 3 * 512 * 2048) + 512 * (CODES + 3)
    depth = 2 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 1024) + 512 * 256 + 256 * (CODES + 3)
    products = 6.0 * frames * (backbone + ratio * CODEBOOKS * depth)
    weights = 65632 * 512 + backbone + depth + (CODEBOOKS - 2) * 256 * (CODES + 3)
    compare(
        name, f"model step, {kind}", contenders, flops=products, moved=4.0 * 7 * weights, bars={PEER: bar}
    )
