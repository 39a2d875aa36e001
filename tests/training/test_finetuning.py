"""What fine-tuning trains and refuses; two ranks through all ZeRO stages, offloaded too, with equal losses.

Run as a script (`test_finetuning.py FOLDER`) this file is the training program of the two ranks.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from csm.data.code_shards import EncodedTurn, read_code_shards, write_code_shards
from csm.data.dataset import DatasetConfig
from csm.data.manifest import Conversation, Corpus, Turn, read_corpus, write_manifest
from csm.data.speakers import speaker_numbers
from csm.data.turn_table_file import table_of
from csm.losses import LossConfig
from csm.model import CSMModel
from csm.network.execution import ExecutionConfig
from csm.network.lora import LoRAConfig
from csm.network.model_config import CSMConfig
from csm.network.parameters import is_added
from csm.network.presets import csm_1b
from csm.recipes.run_config import RunConfig
from csm.recipes.steps.train_model import train_model
from csm.text import EmphasisCodec
from csm.training.finetuning import (
    FinetuneConfig,
    load_for_training,
    make_trainable,
    require_fit,
    require_speakers,
)
from csm.training.options import TrainingConfig

ROOT = Path(__file__).resolve().parents[2]
SMALL = replace(
    csm_1b(),
    cross_layers=(1,),
    memory_layers=(0,),
    n_layers=2,
    d_model=32,
    n_heads=4,
    n_kv_heads=2,
    d_ff=48,
    depth_d_model=24,
    depth_n_layers=1,
    depth_n_heads=3,
    depth_n_kv_heads=1,
    depth_d_ff=40,
    num_codebooks=4,
    codebook_size=16,
    max_context=128,
    text="bytes",
    text_vocab_size=388,
)
DATA = DatasetConfig(
    rows_per_micro_batch=120, max_rows=60, depth_share=0.5, transcribe_share=0.0, past_turns=0
)
VOICE = LossConfig(text=0.0, pitch=0.0, voicing=0.0, energy=0.0, duration=0.0, pace=0.0)
METHODS = {
    "full": FinetuneConfig(freeze=("added",)),
    "lora": FinetuneConfig(train=("lora", "added"), lora=LoRAConfig(rank=4, alpha=8.0, dropout=0.1)),
    "depth": FinetuneConfig(train=("depth_decoder", "codebook0_head")),
}
PLAIN = [(stage, "none") for stage in range(4)]
STAGES = {
    "full": [*PLAIN, (1, "optimizer"), (2, "optimizer"), (3, "optimizer"), (3, "all")],
    "lora": [*PLAIN, (3, "all")],
    "depth": [PLAIN[0], PLAIN[3]],
}


def model_folder(folder: Path, config: CSMConfig = SMALL) -> Path:
    """A random model in transformers' layout."""
    torch.manual_seed(0)
    model = CSMModel(config)
    model.save_pretrained(folder, "transformers")
    return folder


def write_material(folder: Path, *, text: str = "hello there", speakers: int = 2) -> Corpus:
    """A corpus without audio and random codes for it."""
    generator = torch.Generator().manual_seed(0)
    encoded, conversations = [], []
    for number in range(6):
        turns = []
        for index in range(6):
            name = f"c{number}_{index}"
            speaker = f"S{(number * 6 + index) % speakers:03d}"
            turns.append(
                Turn(
                    id=name,
                    conversation=f"c{number}",
                    index=index,
                    speaker=speaker,
                    text=text,
                    audio="a.wav",
                    end=1,
                )
            )
            codes = torch.randint(0, 16, (4, 7), generator=generator).short()
            encoded.append(EncodedTurn(name, codes, torch.zeros(7, 3), torch.zeros(0)))
        split = "validation" if number == 5 else "train"
        conversations.append(Conversation(id=f"c{number}", split=split, turns=tuple(turns)))
    (folder / "corpus").mkdir(parents=True)
    write_manifest(folder / "corpus" / "manifest.jsonl", conversations)
    (folder / "corpus" / "corpus.json").write_text('{"name": "made"}')
    write_code_shards(folder / "codes", encoded, {"corpus": "made"})
    return read_corpus(folder / "corpus")


def recipe(folder: Path, method: str, **training: object) -> RunConfig:
    options = {
        "steps": 2,
        "micro_batches": 2,
        "warmup_steps": 1,
        "learning_rate": 1e-2,
        "log_every": 1,
        **training,
    }
    # With the added parts everything is trained that reads a weight outside its module: writing, memory.
    all_parts = method == "lora"
    return RunConfig(
        recipe="test",
        corpus=str(folder / "corpus"),
        model=SMALL,
        model_start=str(folder / "csm-1b"),
        finetune=METHODS[method],
        data=replace(DATA, transcribe_share=0.4, past_turns=4) if all_parts else DATA,
        loss=LossConfig() if all_parts else VOICE,
        training=TrainingConfig(**options),
    )


def trained(folder: Path, run: RunConfig, name: str) -> Path:
    return train_model(run, folder / "codes", folder / name, torch.device("cpu"))


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    write_material(folder)
    model_folder(folder / "csm-1b")
    return folder


@pytest.fixture(scope="module")
def ranks(material: Path) -> Path:
    """Folders of every method and stage, trained by two ranks in one launch."""
    pytest.importorskip("deepspeed")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", port]
    done = subprocess.run(
        [*launcher, __file__, str(material)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return material


def losses(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.processes
@pytest.mark.parametrize("method", sorted(METHODS))
def test_two_ranks_have_the_same_losses_in_every_zero_stage_and_the_same_bits_offloaded(
    ranks: Path, method: str
) -> None:
    plain, cut = ranks / f"{method}_0_none", ranks / f"{method}_3_none"
    assert [line["step"] for line in losses(plain)] == [0, 1, 2, 2]
    for stage, offload in STAGES[method]:
        first, other = cut if stage == 3 else plain, ranks / f"{method}_{stage}_{offload}"
        assert losses(other) == losses(first), (stage, offload)
        a, b = (load_file(folder / "model.safetensors") for folder in (first, other))
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a), (stage, offload)
    # The hooks of stage 3 change the order in which gradients of the backbone's rows are added up.
    for one, two in zip(losses(plain), losses(cut), strict=True):
        assert one.keys() == two.keys()
        assert all(one[name] == pytest.approx(two[name], rel=1e-5) for name in one if name != "split")


@pytest.mark.processes
@pytest.mark.parametrize("stage", [2, 3])
def test_recomputed_activations_change_no_loss_whoever_gathers_the_weights(ranks: Path, stage: int) -> None:
    for one, two in zip(
        losses(ranks / f"full_{stage}_none"), losses(ranks / f"full_{stage}_recomputed"), strict=True
    ):
        assert all(one[name] == pytest.approx(two[name], rel=1e-5) for name in one if name != "split")


@pytest.mark.processes
def test_one_rank_has_the_losses_of_two(ranks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tiny tensors on two threads of a busy machine wait a hundred times as long as they compute.
    monkeypatch.setattr("csm.training.distributed.available_cores", lambda: 1)
    alone = losses(trained(ranks, recipe(ranks, "full", zero_stage=0), "alone"))
    for one, two in zip(alone, losses(ranks / "full_3_all"), strict=True):
        assert all(one[name] == pytest.approx(two[name], rel=1e-4) for name in one if name != "split")


@pytest.mark.processes
@pytest.mark.parametrize("method", sorted(METHODS))
def test_what_is_frozen_keeps_every_bit_and_what_is_trained_moves(ranks: Path, method: str) -> None:
    folder = ranks / f"{method}_3_none"
    before = CSMModel.from_pretrained(
        ranks / "csm-1b", config=CSMModel.from_pretrained(folder).config
    ).state_dict()
    after = load_file(folder / "model.safetensors")
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    config = METHODS[method]
    if config.adapts:
        layers = {name for name in after if ".blocks." in name and "norm" not in name}
        assert layers <= moved and all(name in layers or is_added(name) for name in moved)
        assert {name for name in after if name.endswith(".gate")} & moved
    else:
        public = {name for name in after if config.trains(name) and name != "text_embedding.weight"}
        assert public == moved - {"text_embedding.weight"}


def test_parts_are_named_and_counted_right() -> None:
    def names(**fields: tuple[str, ...]) -> set[str]:
        model = CSMModel(SMALL)
        make_trainable(model, FinetuneConfig(**fields))
        assert model.training
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    everything = names()
    assert everything == {name for name, _ in CSMModel(SMALL).named_parameters()}
    added = names(train=("added",))
    assert (
        added == {name for name in everything if is_added(name)}
        and names(freeze=("added",)) == everything - added
    )
    gates = names(train=("gates",))
    assert gates == {n for n in everything if n.endswith("gate")} and len(gates) == 4
    backbone = names(train=("backbone",))
    assert all(name.startswith(("backbone.blocks", "backbone.norm")) for name in backbone)
    rest = names(train=("text_embedding", "audio_embedding", "codebook0_head", "depth_decoder"))
    assert backbone | rest | added == everything and not backbone & rest
    adapters = names(train=("lora",))
    assert len(adapters) == 2 * 7 * 3 and all(".lora_" in name for name in adapters)


def test_layers_whose_gates_stay_closed_are_left_out(material: Path) -> None:
    closed = load_for_training(material / "csm-1b", SMALL, METHODS["full"])
    assert closed.config.cross_layers == () and not closed.backbone.voice_reads
    assert closed.config.dropout == SMALL.dropout
    for parts in (("all",), ("gates",), ("added",), ("lora", "gates")):
        opened = load_for_training(material / "csm-1b", SMALL, FinetuneConfig(train=parts))
        assert opened.config.cross_layers == (1,) and opened.config.memory_layers == (0,)


# Bad input


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train": ("backbones",)}, "train has backbones: expected some of all, added"),
        ({"freeze": ("heads",)}, "freeze has heads: expected some of"),
        ({"train": ()}, "train is empty"),
        ({"train": ("all", "lora")}, "not beside all"),
        ({"freeze": ("lora",)}, "not frozen"),
    ],
)
def test_a_part_that_does_not_exist_is_refused(fields: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FinetuneConfig(**fields)


def test_training_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves nothing to train"):
        make_trainable(CSMModel(SMALL), FinetuneConfig(train=("gates",), freeze=("added",)))


def test_a_checkpoint_of_other_sizes_lists_them_all(material: Path) -> None:
    other = replace(SMALL, d_ff=64, depth_n_heads=1, codebook_size=20)
    with pytest.raises(ValueError) as caught:
        load_for_training(material / "csm-1b", other, METHODS["full"])
    for part in (
        "model.d_ff 48 there, 64 here",
        "model.depth_n_heads 3 there, 1 here",
        "model.codebook_size",
    ):
        assert part in str(caught.value)
    assert "model.n_heads" not in str(caught.value)


def test_wrong_key_files_are_refused_before_anything_is_read(material: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no model in"):
        load_for_training(tmp_path, SMALL, METHODS["full"])
    folder = tmp_path / "renamed"
    folder.mkdir()
    (folder / "config.json").write_bytes((material / "csm-1b" / "config.json").read_bytes())
    weights = load_file(material / "csm-1b" / "model.safetensors")
    weights["surplus.weight"] = weights.pop("lm_head.weight")
    from safetensors.torch import save_file

    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing: lm_head.weight\n.*unknown: surplus.weight"):
        load_for_training(folder, SMALL, METHODS["full"])


def fit(folder: Path, model: CSMModel, data: DatasetConfig = DATA) -> None:
    fit_to(read_corpus(folder / "corpus"), read_code_shards(folder / "codes"), model, data)


def fit_to(corpus, encoded, model: CSMModel, data: DatasetConfig = DATA) -> None:
    numbers = speaker_numbers(corpus.speakers())
    require_speakers("corpus", corpus.speakers(), numbers, model, data)
    splits = ("train", "validation")
    tables = [table_of(corpus, encoded, split, model.codec, numbers=numbers) for split in splits]
    require_fit(tables, model, data)


def test_a_corpus_that_fits_is_taken(material: Path) -> None:
    fit(material, CSMModel(SMALL))


def test_chunks_beyond_the_context_are_refused(material: Path) -> None:
    with pytest.raises(
        ValueError, match="data.max_rows is 200: expected at most the model's max_context 128"
    ):
        fit(material, CSMModel(SMALL), replace(DATA, max_rows=200, rows_per_micro_batch=200))


def test_a_text_longer_than_the_context_is_refused(tmp_path: Path) -> None:
    write_material(tmp_path, text="word " * 40)
    with pytest.raises(
        ValueError,
        match=r"the text of 30 turns of the train split \(c0_0, .*longer than the context of 128 rows",
    ):
        fit(tmp_path, CSMModel(SMALL))


def test_speakers_out_of_range_are_refused(material: Path, tmp_path: Path) -> None:
    model = CSMModel(replace(SMALL, max_speakers=3))
    fit(material, model)
    write_material(tmp_path, speakers=4)
    with pytest.raises(
        ValueError,
        match=r"has 4 speakers, too many for the model \(model.max_speakers\): speaker is 3: expected 0..2",
    ):
        fit(tmp_path, model)
    corpus = read_corpus(material / "corpus")
    with pytest.raises(ValueError, match="has 2 speakers, too many.*speaker is 7: expected 0..2"):
        numbers = {"S000": 0, "S001": 7}  # as the model's voices are numbered
        require_speakers("corpus", corpus.speakers(), numbers, model, DATA)
    with pytest.raises(
        ValueError, match="data.exclude_speakers has GODOT, not in .*: expected some of S000, S001"
    ):
        fit(material, model, replace(DATA, exclude_speakers=("GODOT",)))


def test_a_conversation_without_voice_is_refused(material: Path, tmp_path: Path) -> None:
    corpus = write_material(tmp_path)
    from csm.data.code_shards import read_code_shards

    encoded = read_code_shards(tmp_path / "codes")
    silent = {n: t._replace(codes=t.codes[:, :0]) if n.startswith("c2") else t for n, t in encoded.items()}
    with pytest.raises(ValueError, match=r"1 conversations of .* have no voice \(c2\)"):
        fit_to(corpus, silent, CSMModel(SMALL))
    missing = {name: turn for name, turn in encoded.items() if name[:2] not in ("c1", "c3")}
    with pytest.raises(ValueError, match=r"2 conversations of .* have no voice \(c1, c3\)"):
        fit_to(corpus, missing, CSMModel(SMALL))


def test_codes_of_another_tokenizer_are_refused(material: Path) -> None:
    with pytest.raises(ValueError, match="has 4 codebooks, the model 6: encode the corpus"):
        fit(material, CSMModel(replace(SMALL, num_codebooks=6)))
    with pytest.raises(ValueError, match=r"codes range over 0..\d+, expected 0..7"):
        fit(material, CSMModel(replace(SMALL, codebook_size=8)))


def test_a_depth_ratio_of_0_is_refused() -> None:
    with pytest.raises(ValueError, match="depth_share is 0.0: expected above 0, at most 1"):
        replace(DATA, depth_share=0.0)


def main(folder: Path) -> None:
    """Every method in every stage, as one of two ranks."""
    for method in METHODS:
        for stage, offload in STAGES[method]:
            run = recipe(folder, method, zero_stage=stage, offload=offload)
            trained(folder, run, f"{method}_{stage}_{offload}")
    for stage in (2, 3):
        run = replace(
            recipe(folder, "full", zero_stage=stage), execution=ExecutionConfig(checkpoint_layers=True)
        )
        trained(folder, run, f"full_{stage}_recomputed")


if __name__ == "__main__":
    main(Path(sys.argv[1]))


def test_a_voice_of_phones_learns_emphasis_from_its_stressed_vowels(tmp_path: Path) -> None:
    config = replace(SMALL, text="phones", text_vocab_size=0)
    folder = tmp_path / "phones"
    CSMModel(config).save_pretrained(folder)
    plain = CSMModel.from_pretrained(folder)
    learns = load_for_training(folder, replace(config, text="emphasis"), FinetuneConfig())
    assert learns.config.text == "emphasis" and isinstance(learns.codec, EmphasisCodec)
    ids = learns.codec.stressed_ids()
    assert len(ids) == 16 and not {*ids} & {*ids.values()}
    for name, value in learns.state_dict().items():
        before = plain.state_dict()[name].clone()
        if name == "text_embedding.weight":
            for emphasised, stressed in ids.items():
                before[emphasised] = before[stressed]
        assert torch.equal(value, before), name
    assert load_for_training(folder, config, FinetuneConfig()).config.text == "phones"
