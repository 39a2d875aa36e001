"""A folder like csm-1b's and a folder of recordings, both small and random, for the tests of fine-tuning."""

import json
from pathlib import Path

import numpy
import soundfile
import torch

from csm.data.manifest import split_of

SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|AUDIO|>", "<|audio_eos|>"]
CODEBOOKS, CODES = 4, 16
# The small model's sizes as fields of the recipe, in an order in which each fits those before it.
SIZES = {
    "model.cross_layers": "1",
    "model.memory_layers": "2",
    "model.n_layers": "3",
    "model.d_model": "64",
    "model.n_kv_heads": "2",
    "model.n_heads": "4",
    "model.d_ff": "96",
    "model.depth_n_layers": "2",
    "model.depth_d_model": "48",
    "model.depth_n_heads": "6",
    "model.depth_n_kv_heads": "3",
    "model.depth_d_ff": "80",
    "model.num_codebooks": str(CODEBOOKS),
    "model.codebook_size": str(CODES),
    "model.text_vocab_size": "80",
    "model.max_context": "256",
}


def llama_rope(length: int) -> dict:
    """Llama 3's rule as csm-1b's config.json has it."""
    factors = {"low_freq_factor": length / 8192, "high_freq_factor": length / 2048}
    rule = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0}
    return {**rule, **factors, "original_max_position_embeddings": length}


def write_tokenizer(path: Path) -> None:
    """Letters and the control ids of the prompt, as Llama's tokenizer has them."""
    import tokenizers

    letters = [*SPECIAL, *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789[] .,?!'"]
    vocab = {token: index for index, token in enumerate(letters)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    made.add_special_tokens(SPECIAL)
    made.save(str(path))


def write_csm_1b(folder: Path, seed: int = 0) -> Path:
    """A random CsmForConditionalGeneration with a random Mimi, as transformers saves it, and a tokenizer."""
    import transformers

    torch.manual_seed(seed)
    codec = {
        "model_type": "mimi",
        "hidden_size": 32,
        "num_filters": 4,
        "codebook_size": CODES,
        "codebook_dim": 16,
        "vector_quantization_hidden_dimension": 16,
        "num_quantizers": CODEBOOKS,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 32,
        "upsample_groups": 32,
        "sliding_window": 20,
    }
    depth = {
        "hidden_size": 48,
        "backbone_hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "intermediate_size": 80,
        "num_codebooks": CODEBOOKS,
        "vocab_size": CODES + 3,
        "max_position_embeddings": CODEBOOKS + 1,
        "rope_parameters": llama_rope(2),
    }
    config = transformers.CsmConfig(
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        num_codebooks=CODEBOOKS,
        vocab_size=CODES + 3,
        text_vocab_size=80,
        max_position_embeddings=256,
        bos_token_id=0,
        pad_token_id=1,
        codebook_pad_token_id=CODES + 2,
        audio_token_id=2,
        audio_eos_token_id=3,
        rope_parameters=llama_rope(128),
        depth_decoder_config=depth,
        codec_config=codec,
    )
    model = transformers.CsmForConditionalGeneration(config).eval()
    for name, buffer in model.codec_model.named_buffers():
        if name.endswith(("cluster_usage", "initialized")):
            buffer.fill_(1.0)
        elif name.endswith("embed_sum"):
            buffer.copy_(torch.randn(buffer.shape) * 0.1)
    for parameter in [p for n, p in model.named_parameters() if not n.startswith("codec_model.")]:
        scale = 0.1 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
        parameter.data = torch.randn(parameter.shape) * scale + float(parameter.ndim == 1)
    model.tie_weights()
    model.save_pretrained(folder)
    write_tokenizer(folder / "tokenizer.json")
    return folder


def write_recordings(folder: Path, conversations: int = 6, *, seconds: float = 1.2) -> Path:
    """Recordings of two speakers for `prepare_data --corpus folder`; one of them is for validation."""
    folder.mkdir(parents=True)
    names = [f"talk_{i}" for i in range(200)]
    wanted = [n for n in names if split_of(n) == "train"][: conversations - 1]
    wanted += [n for n in names if split_of(n) == "validation"][:1]
    rate, rng = 24_000, numpy.random.default_rng(0)
    for name in wanted:
        turns = []
        for index in range(4):
            start = index * (seconds + 0.1)
            text = ("Hello there.", "How are you?", "Quite well, I think", "See you then")[index]
            turns.append(
                {"speaker": ("ANN", "BEN")[index % 2], "start": start, "end": start + seconds, "text": text}
            )
        audio = 0.1 * rng.standard_normal(round((seconds + 0.1) * 4 * rate))
        soundfile.write(folder / f"{name}.wav", audio, rate)
        (folder / f"{name}.json").write_text(json.dumps({"turns": turns}))
    return folder
