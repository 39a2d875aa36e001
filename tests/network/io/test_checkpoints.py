"""Folders in three layouts: what goes out comes back bit for bit, and what does not fit is said whole."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from csm.cli import main
from csm.model import CSMConfig, CSMModel
from csm.network.io import checkpoints
from csm.network.io.public_names import to_halves, to_neighbours
from csm.network.io.weight_files import INDEX, WEIGHTS, Weight, stored_weights, write_weights
from csm.network.parameters import is_added
from csm.network.presets import csm_1b, with_added_layers
from csm.sequences.packed_batch import IGNORE, RowBatch
from csm.sequences.past_turns import pack_past

ROOT = Path(__file__).resolve().parents[3]
LAYOUTS = ("csm", "transformers", "sesame")
SMALL = with_added_layers(
    replace(
        csm_1b(),
        d_model=32,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        d_ff=48,
        depth_d_model=24,
        depth_n_layers=2,
        depth_n_heads=3,
        depth_n_kv_heads=1,
        depth_d_ff=40,
        num_codebooks=4,
        codebook_size=16,
        text_vocab_size=20,
        cross_layers=(),
        memory_layers=(),
    )
)


def random_model(config: CSMConfig = SMALL, seed: int = 0) -> CSMModel:
    """Random everywhere, with closed gates."""
    torch.manual_seed(seed)
    model = CSMModel(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("gate"):
            parameter.data.zero_()
        elif not is_added(name):
            scale = 0.1 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
            parameter.data = torch.randn(parameter.shape) * scale + float(parameter.ndim == 1)
    return model


def public_state(model: CSMModel) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.state_dict().items() if not is_added(name)}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if a[name].dtype != b[name].dtype or not torch.equal(a[name], b[name])]
    assert not different


@pytest.mark.parametrize("shard_bytes", [5 * 10**9, 4000, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_round_trip_is_bit_exact_in_any_layout_and_number_of_files(tmp_path, layout, shard_bytes) -> None:
    model = random_model()
    model.save_pretrained(tmp_path, layout, shard_bytes=shard_bytes)
    again = CSMModel.from_pretrained(tmp_path)
    assert not again.training and again.config == model.config
    if layout == "csm":
        assert_same(again.state_dict(), model.state_dict())
        # An optimizer takes parameters: what is a buffer in training is one in a model that was read.
        assert dict(again.named_parameters()).keys() == dict(model.named_parameters()).keys()
    assert_same(public_state(again), public_state(model))
    count = len([*tmp_path.glob("*.safetensors")])
    assert (count == 1) == (shard_bytes > 10**6) == (not (tmp_path / INDEX).exists())


def rewrite(source, target, layout, *, shard_bytes: int) -> checkpoints.StoredModel:
    """What launch/convert_checkpoint.py does: one tensor in memory at a time."""
    stored = checkpoints.read(source)
    checkpoints.write(target, stored.config, stored.weights, layout, shard_bytes=shard_bytes)
    return stored


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_way_through_all_layouts_by_the_command_keeps_every_bit_and_the_dtype(tmp_path, dtype) -> None:
    model = random_model().to(dtype)
    model.save_pretrained(tmp_path / "0")
    for step, layout in enumerate(["sesame", "transformers", "sesame", "csm", "transformers", "csm"]):
        rewrite(tmp_path / str(step), tmp_path / str(step + 1), layout, shard_bytes=10_000)
    last = CSMModel.from_pretrained(tmp_path / "6", dtype=dtype)
    assert_same(public_state(last), public_state(model))
    direct = {name: weight.dtype for name, weight in stored_weights(tmp_path / "6").items()}
    assert set(direct.values()) == {dtype}
    assert CSMModel.from_pretrained(tmp_path / "6").text_embedding.weight.dtype == torch.float32


def test_files_are_those_of_the_library_safetensors(tmp_path) -> None:
    model = random_model()
    model.save_pretrained(tmp_path / "ours")
    assert_same(load_file(tmp_path / "ours" / WEIGHTS), model.state_dict())
    save_file(dict(model.state_dict()), tmp_path / "ours" / WEIGHTS, metadata={"format": "pt"})
    assert_same(CSMModel.from_pretrained(tmp_path / "ours").state_dict(), model.state_dict())


def test_all_dtypes_and_shapes_pass_through_files(tmp_path) -> None:
    tensors = {
        "none": torch.zeros(0, 3),
        "one": torch.tensor(1.5, dtype=torch.float64),
        "odd": torch.arange(3, dtype=torch.int8),
        "half": torch.randn(2, 3, 5).bfloat16(),
        "turned": torch.randn(4, 6).T,
        "flags": torch.tensor([True, False]),
    }
    weights = {k: Weight(tuple(v.shape), v.dtype, lambda v=v: v) for k, v in tensors.items()}
    write_weights(tmp_path, weights, 40)
    read = {name: weight.read() for name, weight in stored_weights(tmp_path).items()}
    assert_same(read, tensors)
    with pytest.raises(ValueError, match="shard_bytes is 0"):
        write_weights(tmp_path, weights, 0)


def test_a_later_save_leaves_nothing_of_an_earlier_one(tmp_path) -> None:
    random_model(seed=1).save_pretrained(tmp_path, shard_bytes=4000)
    (tmp_path / "notes.txt").write_text("mine")
    model = random_model(seed=2)
    model.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", WEIGHTS, "notes.txt"]
    assert_same(CSMModel.from_pretrained(tmp_path).state_dict(), model.state_dict())
    # Over its own folder: what is read there is read before it is replaced.
    assert rewrite(tmp_path, tmp_path, "sesame", shard_bytes=4000).layout == "csm"
    assert_same(public_state(CSMModel.from_pretrained(tmp_path)), public_state(model))


def test_import_is_the_same_every_time_and_closed(tmp_path) -> None:
    random_model().save_pretrained(tmp_path, "sesame")
    torch.manual_seed(1)
    a = CSMModel.from_pretrained(tmp_path)
    torch.manual_seed(2)
    b = CSMModel.from_pretrained(tmp_path)
    assert_same(a.state_dict(), b.state_dict())
    added = {name: value for name, value in a.state_dict().items() if is_added(name)}
    zero = {name for name, value in added.items() if not value.any()}
    assert {name for name in added if name.endswith("gate")} <= zero
    heads = {"duration_head.weight", "prosody_head.weight", "pace_head.pace.weight"}
    assert heads | {"duration_head.bias"} <= zero
    assert not any(name.endswith("weight") for name in zero - heads)


# ---- Sesame's model: rows of 33 columns, rotary pairs that are neighbours (models.py, torchtune) ----


def rotate_neighbours(x: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """torchtune's rotary positions of x [T, N, H]: channels 2i and 2i + 1 turn together."""
    angles = torch.arange(len(x)).unsqueeze(1) * frequencies
    cos, sin = angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)


def llama(x: torch.Tensor, state: dict, part: str, layers: int, heads: int, kv_heads: int) -> torch.Tensor:
    """A torchtune decoder over rows [T, D]."""

    def norm(rows: torch.Tensor, name: str) -> torch.Tensor:
        return rows * (rows.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * state[f"{name}.scale"]

    hd = x.shape[1] // heads
    frequencies = 1.0 / 500_000.0 ** (torch.arange(0, hd, 2) / hd)
    wavelength = 2 * torch.pi / frequencies
    smooth = (8192 / wavelength - 1) / 3
    blended = (1 - smooth) * frequencies / 32 + smooth * frequencies
    long = torch.where(wavelength > 8192, frequencies / 32, blended)
    frequencies = torch.where(wavelength < 2048, frequencies, long)
    for layer in range(layers):
        name = f"{part}.layers.{layer}"
        y = norm(x, f"{name}.sa_norm")
        q, k, v = (F.linear(y, state[f"{name}.attn.{p}_proj.weight"]).unflatten(1, (-1, hd)) for p in "qkv")
        q, k = rotate_neighbours(q, frequencies), rotate_neighbours(k, frequencies)
        k, v = (t.repeat_interleave(heads // kv_heads, dim=1) for t in (k, v))
        out = F.scaled_dot_product_attention(*(t.transpose(0, 1) for t in (q, k, v)), is_causal=True)
        x = x + F.linear(out.transpose(0, 1).flatten(1), state[f"{name}.attn.output_proj.weight"])
        y = norm(x, f"{name}.mlp_norm")
        gated = F.silu(F.linear(y, state[f"{name}.mlp.w1.weight"])) * F.linear(
            y, state[f"{name}.mlp.w3.weight"]
        )
        x = x + F.linear(gated, state[f"{name}.mlp.w2.weight"])
    return norm(x, f"{part}.norm")


@torch.no_grad()
def test_sesames_layout_computes_the_same_by_sesames_rules(tmp_path) -> None:
    model = random_model()
    model.save_pretrained(tmp_path, "sesame")
    state, c, vocab = load_file(tmp_path / WEIGHTS), model.config, model.config.audio_vocab_size
    generator = torch.Generator().manual_seed(0)
    text, frames = torch.tensor([3, 5, 7, 2]), torch.randint(0, 16, (6, 4), generator=generator)
    tokens = torch.zeros(11, 5, dtype=torch.int64)
    mask = torch.zeros(11, 5)
    tokens[:4, -1], mask[:4, -1] = text, 1
    tokens[4:10, :-1], mask[4:, :-1] = frames, 1
    columns = state["audio_embeddings.weight"][tokens[:, :-1] + vocab * torch.arange(4)]
    words = state["text_embeddings.weight"][tokens[:, -1:]]
    rows = (torch.cat([columns, words], dim=1) * mask.unsqueeze(-1)).sum(1)
    hidden = llama(rows, state, "backbone", c.n_layers, c.n_heads, c.n_kv_heads)
    code0 = F.linear(hidden, state["codebook0_head.weight"])

    ids = torch.cat([text, torch.full((7,), -1)])
    codes = torch.cat([torch.full((4, 4), -1), frames, torch.zeros(1, 4, dtype=torch.int64)])
    targets = torch.full((11, 4), IGNORE)
    targets[3:10] = codes[4:]
    batch = rows_batch(model, ids, codes, targets)
    ours = model.logits(batch)
    torch.testing.assert_close(model.codebook0_head(model.hidden_rows(batch)), code0, atol=1e-5, rtol=1e-5)
    for place, row in enumerate(range(3, 10)):
        inputs = torch.cat(
            [
                hidden[row : row + 1],
                state["audio_embeddings.weight"][codes[row + 1, :-1] + vocab * torch.arange(3)],
            ]
        )
        inner = F.linear(inputs, state["projection.weight"])
        out = llama(inner, state, "decoder", c.depth_n_layers, c.depth_n_heads, c.depth_n_kv_heads)
        logits = torch.einsum("kd,kdv->kv", out[1:], state["audio_head"])
        torch.testing.assert_close(ours.depth[place], logits, atol=1e-5, rtol=1e-5)


def rows_batch(model: CSMModel, ids: torch.Tensor, codes: torch.Tensor, targets: torch.Tensor) -> RowBatch:
    """One sequence of rows without reading or past."""
    rows = len(ids)
    return RowBatch(
        ids=["rows"],
        text=ids,
        codes=codes,
        positions=torch.arange(rows),
        cu_seqlens=torch.tensor([0, rows], dtype=torch.int32),
        longest=rows,
        voice_spans=[],
        text_spans=[],
        code_target=targets,
        text_target=torch.full((rows,), IGNORE),
        prosody_target=torch.zeros(rows, 3),
        prosody_known=torch.zeros(rows, dtype=torch.bool),
        duration_target=torch.full((rows,), float("nan")),
        pace_target=torch.full((rows,), float("nan")),
        past=pack_past([[]], model.codec, model.config.num_codebooks),
    )


def test_turning_rotary_pairs_is_a_permutation_with_a_way_back() -> None:
    weight = torch.arange(24.0).view(12, 2)
    turned = to_halves(weight, 2)
    assert turned[:, 0].tolist() == [0, 4, 8, 2, 6, 10, 12, 16, 20, 14, 18, 22]
    assert torch.equal(to_neighbours(turned, 2), weight)


# ---- transformers' files ----


def test_either_copy_of_the_shared_audio_table_will_do(tmp_path) -> None:
    model = random_model()
    model.save_pretrained(tmp_path, "transformers")
    state = load_file(tmp_path / WEIGHTS)
    table = state["depth_decoder.model.embed_tokens.weight"]
    twin = "backbone_model.embed_tokens.embed_audio_tokens.weight"
    codec = {"codec_model.anything.weight": torch.zeros(3)}
    for stored in (
        {**state, twin: table.clone()},
        {**without(state, "depth_decoder.model.embed_tokens.weight"), twin: table},
    ):
        save_file({**stored, **codec}, tmp_path / WEIGHTS)
        assert_same(public_state(CSMModel.from_pretrained(tmp_path)), public_state(model))
    save_file({**state, twin: table + 1}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match="differ: expected one shared audio table"):
        CSMModel.from_pretrained(tmp_path)


def without(state: dict, *names: str) -> dict:
    return {name: value for name, value in state.items() if name not in names}


def test_transformers_reads_what_we_export_and_mimi_goes_along(tmp_path) -> None:
    transformers = pytest.importorskip("transformers")
    codec = {"model_type": "mimi", "hidden_size": 16, "num_filters": 2, "num_hidden_layers": 1}
    codec |= {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 16}
    codec |= {"upsample_groups": 16, "num_quantizers": 4, "codebook_size": 16, "codebook_dim": 8}
    codec |= {"vector_quantization_hidden_dimension": 8}
    model = random_model()
    model.save_pretrained(tmp_path / "bare", "transformers")
    raw = {**json.loads((tmp_path / "bare/config.json").read_text()), "codec_config": codec}
    theirs = transformers.CsmForConditionalGeneration(transformers.CsmConfig(**raw))
    theirs.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs/tokenizer_config.json").write_text("{}")
    model.save_pretrained(
        tmp_path / "ours", "transformers", codec_from=tmp_path / "theirs", shard_bytes=20_000
    )
    loaded, info = transformers.CsmForConditionalGeneration.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    for name, value in theirs.codec_model.state_dict().items():
        assert torch.equal(value, loaded.codec_model.state_dict()[name])
    assert torch.equal(loaded.lm_head.weight, model.codebook0_head.weight)
    assert (tmp_path / "ours/tokenizer_config.json").exists()
    drawn = transformers.GenerationConfig.from_pretrained(tmp_path / "bare")
    assert (drawn.do_sample, drawn.temperature, drawn.top_k) == (True, 0.9, 50)
    with pytest.raises(ValueError, match="codec_from with layout 'sesame'"):
        model.save_pretrained(tmp_path / "x", "sesame", codec_from=tmp_path / "theirs")
    with pytest.raises(ValueError, match="holds no Mimi"):
        model.save_pretrained(tmp_path / "x", "transformers", codec_from=tmp_path / "bare")
    assert not (tmp_path / "x").exists()


def test_the_public_folder_of_two_layouts_is_read_by_the_file_its_config_names(tmp_path) -> None:
    """sesame/csm-1b holds both: config.json says which file is transformers'."""
    model, other = random_model(), random_model(seed=5)
    other.save_pretrained(tmp_path, "sesame")
    model.save_pretrained(tmp_path / "t", "transformers")
    (tmp_path / "t" / WEIGHTS).rename(tmp_path / "transformers.safetensors")
    raw = json.loads((tmp_path / "config.json").read_text())
    raw |= json.loads((tmp_path / "t/config.json").read_text())
    named = {**raw, "transformers_weights": "transformers.safetensors"}
    (tmp_path / "config.json").write_text(json.dumps(named))
    assert_same(public_state(CSMModel.from_pretrained(tmp_path)), public_state(model))
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert_same(public_state(CSMModel.from_pretrained(tmp_path)), public_state(other))


# ---- what goes with the weights ----


def test_the_tokenizer_goes_along_and_a_model_without_one_refuses_text(tmp_path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    vocab = {t: i for i, t in enumerate(["<|begin_of_text|>", "<|end_of_text|>", "[0]", "hi", "?"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="?"))
    random_model().save_pretrained(tmp_path / "a", "sesame")
    bare = CSMModel.from_pretrained(tmp_path / "a")
    for call in (lambda: bare(["hi"]), lambda: bare(voice_codes=torch.zeros(1, 4, 2).long())):
        with pytest.raises(ValueError, match="put tokenizer.json into its folder"):
            call()
    made.save(str(tmp_path / "a/tokenizer.json"))
    model = CSMModel.from_pretrained(tmp_path / "a")
    assert model.config.text == str(tmp_path / "a/tokenizer.json") and model.codec.vocab_size == 5
    for layout in LAYOUTS:
        model.save_pretrained(tmp_path / layout, layout)
        again = CSMModel.from_pretrained(tmp_path / layout)
        assert again.config.text == str(tmp_path / layout / "tokenizer.json")
        again.save_pretrained(tmp_path / layout, layout)
    with pytest.raises(ValueError, match="text_vocab_size is 20: expected 0 or at least 388"):
        CSMModel.from_pretrained(tmp_path / "a", text="bytes")


def test_what_a_public_layout_cannot_hold_is_refused(tmp_path) -> None:
    model = random_model()
    gate = model.backbone.voice_reads["1"].gate
    gate.data.fill_(0.1)
    for layout in ("sesame", "transformers"):
        with pytest.raises(ValueError, match="no place.*backbone.voice_reads.1.gate.*layout='csm'"):
            model.save_pretrained(tmp_path / "x", layout)
    gate.data.zero_()
    other = random_model(replace(SMALL, zeros_end=False))
    with pytest.raises(ValueError, match="ends turns by zeros, this model by code 16"):
        other.save_pretrained(tmp_path / "x", "sesame")
    with pytest.raises(ValueError, match="layout is 'torchtune': expected one of csm, transformers, sesame"):
        model.save_pretrained(tmp_path / "x", "torchtune")
    assert not (tmp_path / "x").exists()


# ---- bad input ----


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_keys_that_do_not_fit_are_listed_in_one_error(tmp_path, layout) -> None:
    random_model().save_pretrained(tmp_path, layout)
    state = load_file(tmp_path / WEIGHTS)
    names = sorted(name for name in state if "q_proj" in name or "norm" in name)
    missing, misshapen = names[:3], names[3:6]
    state = without(state, *missing)
    for name in misshapen:
        state[name] = torch.zeros(7)
    save_file({**state, "something.else": torch.zeros(1), "lora.weight": torch.zeros(1)}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError) as error:
        CSMModel.from_pretrained(tmp_path)
    text = str(error.value)
    for name in (
        *missing,
        *(f"{name} is [7], expected" for name in misshapen),
        "something.else",
        "lora.weight",
    ):
        assert name in text
    assert f"layout {layout!r}" in text and text.index("missing") < text.index("shape") < text.index(
        "unknown"
    )


def test_a_checkpoint_of_other_sizes_names_every_tensor_and_a_config_of_ones_own_helps(tmp_path) -> None:
    random_model().save_pretrained(tmp_path, "sesame")
    wide = replace(SMALL, d_ff=64)
    with pytest.raises(ValueError, match="give the sizes as config=") as error:
        CSMModel.from_pretrained(tmp_path, config=wide)
    assert str(error.value).count("expected [64, 32]") == 4
    (tmp_path / "config.json").write_text('{"backbone_flavor": "llama-9B"}')
    with pytest.raises(ValueError, match="llama-9B"):
        CSMModel.from_pretrained(tmp_path)
    assert CSMModel.from_pretrained(tmp_path, config=SMALL).config == SMALL


def link_weights(folder: Path) -> None:
    """Lets an index name a link to weights elsewhere."""
    (folder / INDEX).write_text('{"weight_map": {"a": "link.safetensors"}}')
    (folder / "link.safetensors").symlink_to(folder / WEIGHTS)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no model in"),
        (lambda folder: (folder / WEIGHTS).unlink(), "no weights in"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "holds list"),
        (lambda folder: (folder / "config.json").write_text('{"width": 3}'), "width: unknown field"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"short"), "not a whole safetensors file"),
        (lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9]), "copy it"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"\xff" * 99), "not a whole safetensors file"),
        (lambda folder: save_file({"a": torch.zeros(1)}, folder / WEIGHTS), "no known layout.*found a"),
        (lambda folder: (folder / INDEX).write_text("{}"), "not a safetensors index"),
        (
            lambda folder: (folder / INDEX).write_text('{"weight_map": {"a": "b.safetensors"}}'),
            "b.safetensors",
        ),
        (lambda folder: (folder / INDEX).write_text(json.dumps({"weight_map": {"a": WEIGHTS}})), "differ in"),
        (
            lambda folder: (folder / INDEX).write_text('{"weight_map": {"a": "../b.safetensors"}}'),
            "names .'../b.safetensors'.: expected files of its own folder",
        ),
        (link_weights, "expected files of its own folder"),
    ],
)
def test_damaged_folders_are_refused_with_what_to_do(tmp_path, spoil, message) -> None:
    random_model().save_pretrained(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message):
        CSMModel.from_pretrained(tmp_path)


# ---- memory and the command ----

PEAK = """
import resource
from csm.model import CSMModel
from csm.network.io.checkpoints import load, read, write

def convert(source, **options):
    stored = read(source)
    write({out!r}, stored.config, stored.weights, "sesame", **options)

{warm_up}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
{call}
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts in other units elsewhere")
def test_reading_holds_one_copy_and_converting_one_tensor(tmp_path) -> None:
    """Measured in processes of their own; the largest tensor here is a fiftieth of the weights."""
    config = replace(SMALL, d_model=512, n_heads=8, n_layers=10, d_ff=2048, n_kv_heads=8, text_vocab_size=999)
    config = replace(config, cross_layers=(), memory_layers=())
    shapes = {n: tuple(p.shape) for n, p in checkpoints.on_meta(CSMModel, config).state_dict().items()}
    weights = {n: Weight(s, torch.float32, lambda s=s: torch.randn(s)) for n, s in shapes.items()}
    checkpoints.write(tmp_path / "big", config, weights, "csm")
    random_model().save_pretrained(tmp_path / "small")
    size = (tmp_path / "big" / WEIGHTS).stat().st_size
    assert size > 150e6
    big, small = str(tmp_path / "big"), str(tmp_path / "small")
    out = str(tmp_path / "out")
    for warm_up, call, copies in (
        (f"load(CSMModel, {small!r})", f"load(CSMModel, {big!r})", 1.15),
        (
            f"convert({small!r})",
            f"convert({big!r}, shard_bytes=10**8)",
            0.2,
        ),
    ):
        program = PEAK.format(warm_up=warm_up, call=call, out=out)
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=80,
            env={"PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) < copies * size, call


def test_the_command_converts_and_says_what_is_wrong_in_one_line(tmp_path, capsys) -> None:
    model = random_model()
    model.save_pretrained(tmp_path / "a", "sesame")
    words = ["convert", str(tmp_path / "a"), str(tmp_path / "b")]
    assert main([*words, "--layout", "transformers", "--shard-gb", "1e-5"]) == 0
    assert "transformers from sesame" in capsys.readouterr().out and (tmp_path / "b" / INDEX).is_file()
    assert_same(public_state(CSMModel.from_pretrained(tmp_path / "b")), public_state(model))
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "holds a model already" in said and said.count("\n") == 1
