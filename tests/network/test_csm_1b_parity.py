"""Small random models of transformers' CSM, imported: the same prompts, logits, losses, frames and codes."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from csm.generation.sampling import SamplingConfig
from csm.generation.session import Session
from csm.losses import ConversationTargets, LossConfig, conversational_loss
from csm.model import CSMModel
from csm.sequences.packed_batch import IGNORE, RowBatch
from csm.sequences.turns import TurnFrames
from csm.tokenizer.mimi import MimiTokenizer

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

VOICE_ONLY = LossConfig(text=0.0, pitch=0.0, voicing=0.0, energy=0.0, duration=0.0, pace=0.0)
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|AUDIO|>", "<|audio_eos|>"]
# Frames of each turn: two conversations of different lengths.
CONVERSATIONS = [
    [("hello there", 0, 3), ("and to you", 1, 5), ("how are things", 0, 4)],
    [("a short one", 2, 2)],
]


def llama_rope(length: int) -> dict:
    """Llama 3's rule as csm-1b's config.json has it, with an original length below the model's."""
    low, high = length / 8192, length / 2048
    return {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 32.0,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": length,
    }


def word_tokenizer() -> "tokenizers.Tokenizer":
    """Letters and the control ids of the prompt, as Llama's tokenizer has them."""
    letters = [*SPECIAL, *"abcdefghijklmnopqrstuvwxyz0123456789[] .,?"]
    vocab = {token: index for index, token in enumerate(letters)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    made.add_special_tokens(SPECIAL)
    return made


class Pair(NamedTuple):
    """transformers' model and processor, their folder, and what it is imported as."""

    theirs: "transformers.CsmForConditionalGeneration"
    processor: "transformers.CsmProcessor"
    folder: Path
    ours: CSMModel


def make_pair(folder: Path, *, vocab: int, codebooks: int, scaled: bool, seed: int = 0) -> Pair:
    torch.manual_seed(seed)
    codec = {
        "model_type": "mimi",
        "hidden_size": 32,
        "num_filters": 4,
        "codebook_size": vocab - 3,
        "codebook_dim": 16,
        "vector_quantization_hidden_dimension": 16,
        "num_quantizers": codebooks,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 32,
        "upsample_groups": 32,
        "sliding_window": 20,
    }
    plain = {"rope_type": "default", "rope_theta": 500_000.0}
    depth = {
        "hidden_size": 48,
        "backbone_hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "intermediate_size": 80,
        "num_codebooks": codebooks,
        "vocab_size": vocab,
        "max_position_embeddings": codebooks + 1,
        "rope_parameters": llama_rope(2) if scaled else plain,
    }
    config = transformers.CsmConfig(
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        num_codebooks=codebooks,
        vocab_size=vocab,
        text_vocab_size=64,
        bos_token_id=0,
        pad_token_id=1,
        codebook_pad_token_id=vocab - 1,
        audio_token_id=2,
        audio_eos_token_id=3,
        rope_parameters=llama_rope(1024) if scaled else plain,
        depth_decoder_config=depth,
        codec_config=codec,
    )
    theirs = transformers.CsmForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "norm" in name and "codec" not in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif parameter.ndim >= 2 and "codec" not in name:
                fan_in = parameter.shape[-2] if "codebooks_head" in name else parameter.shape[-1]
                parameter.copy_(torch.randn_like(parameter) * (0.3 if "embed" in name else fan_in**-0.5))
        for name, buffer in theirs.codec_model.named_buffers():
            if name.endswith(("cluster_usage", "initialized")):
                buffer.fill_(1.0)
            elif name.endswith("embed_sum"):
                buffer.copy_(0.1 * torch.randn_like(buffer))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(), bos_token=SPECIAL[0], eos_token=SPECIAL[1], pad_token=SPECIAL[1]
    )
    processor = transformers.CsmProcessor(transformers.EncodecFeatureExtractor(1, 24_000), tokenizer)
    theirs.save_pretrained(folder)
    word_tokenizer().save(str(folder / "tokenizer.json"))
    return Pair(theirs, processor, folder, CSMModel.from_pretrained(folder))


@pytest.fixture(scope="module", params=["csm-1b's codes, scaled positions", "few codes, plain positions"])
def pair(request, tmp_path_factory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    if request.param.startswith("csm-1b"):
        return make_pair(folder, vocab=2051, codebooks=32, scaled=True)
    return make_pair(folder, vocab=35, codebooks=4, scaled=False)


class Material(NamedTuple):
    """Conversations as transformers' processor gives them, and as ours."""

    inputs: dict
    turns: list[list[TurnFrames]]
    batch: RowBatch


@pytest.fixture(scope="module")
def material(pair) -> Material:
    generator = torch.Generator().manual_seed(5)
    mimi = MimiTokenizer(pair.theirs.codec_model)
    texts, audio, turns = [], [], []
    for conversation in CONVERSATIONS:
        prompt, said = "", []
        for text, speaker, frames in conversation:
            waveform = 0.1 * torch.randn(1, 1, 1920 * frames, generator=generator)
            prompt += f"<|begin_of_text|>[{speaker}]{text}<|end_of_text|><|AUDIO|><|audio_eos|>"
            audio.append(waveform[0, 0].numpy())
            said.append(TurnFrames(text, text, speaker, mimi.encode(waveform)[0][0]))
        texts.append(prompt)
        turns.append(said)
    inputs = pair.processor(text=texts, audio=audio, output_labels=True, return_tensors="pt")
    return Material(dict(inputs), turns, rows_of(pair.ours, turns))


def rows_of(model: CSMModel, conversations: list[list[TurnFrames]]) -> RowBatch:
    builder = model.new_rows()
    for turns in conversations:
        builder.begin_sequence()
        for turn in turns:
            builder.add_spoken(turn)
    return builder.build()


def unpadded(rows: torch.Tensor, inputs: dict) -> torch.Tensor:
    """The rows of a padded batch end to end, as ours lie."""
    return rows[inputs["attention_mask"].bool()]


@torch.no_grad()
def test_the_prompt_is_the_processors_row_by_row(pair, material) -> None:
    """bos, "[speaker]text", eos, the audio rows, one end row of zeros; turns end to end."""
    inputs, batch = material.inputs, material.batch
    ids = unpadded(inputs["input_ids"], inputs)
    assert ids.shape == batch.text.shape
    is_text = batch.text >= 0
    assert torch.equal(is_text, (ids != 2) & (ids != 3))
    assert torch.equal(batch.text[is_text], ids[is_text])
    assert not batch.codes[ids == 3].any()
    merged = pair.theirs._merge_input_ids_with_input_values(
        inputs["input_ids"], inputs["input_values"], inputs["input_values_cutoffs"], inputs["labels"]
    )
    labels = unpadded(merged["labels"], inputs)
    assert torch.equal(batch.codes[~is_text], labels[~is_text])
    rows = pair.ours.embed_rows(batch.text, batch.codes)
    torch.testing.assert_close(rows, unpadded(merged["inputs_embeds"], inputs), atol=1e-6, rtol=0)
    # What our rows are to predict is what theirs are labelled with, one row on.
    starts = batch.cu_seqlens[1:-1].long()
    lasts = torch.cat([starts - 1, torch.tensor([len(ids) - 1])])
    following = labels.roll(-1, 0).index_fill(0, lasts, IGNORE)
    assert torch.equal(batch.code_target, following)


@torch.no_grad()
def test_teacher_forced_logits_of_all_codebooks_are_theirs(pair, material) -> None:
    theirs = pair.theirs(**material.inputs)
    ours = pair.ours.logits(material.batch)
    hidden = pair.ours.hidden_rows(material.batch)
    everywhere = unpadded(theirs.logits, material.inputs)
    torch.testing.assert_close(pair.ours.codebook0_head(hidden), everywhere, atol=1e-5, rtol=0)
    speaks = material.batch.code_target[:, 0] != IGNORE
    torch.testing.assert_close(ours.codebook0, everywhere[speaks], atol=1e-5, rtol=0)
    assert ours.depth.shape == theirs.depth_decoder_logits.shape
    torch.testing.assert_close(ours.depth, theirs.depth_decoder_logits, atol=1e-5, rtol=0)
    # They are logits of a model that prefers something.
    assert float(everywhere.std()) > 0.3 and float(ours.depth.std()) > 0.3


@torch.no_grad()
def test_the_loss_is_theirs_and_so_is_each_part(pair, material) -> None:
    theirs = pair.theirs(**material.inputs)
    targets = ConversationTargets.of(material.batch, pair.ours.config.semantic_codebooks)
    ours = conversational_loss(pair.ours.logits(material.batch), targets, VOICE_ONLY)
    assert float(ours.parts["codebook0"]) == pytest.approx(float(theirs.backbone_loss), abs=1e-6)
    assert float(ours.parts["acoustic"]) == pytest.approx(float(theirs.depth_decoder_loss), abs=1e-6)
    assert float(ours.total) == pytest.approx(float(theirs.loss), abs=1e-6)


def test_the_gradient_is_theirs(pair, material) -> None:
    pair.theirs.zero_grad(), pair.ours.zero_grad()
    pair.theirs(**material.inputs).loss.backward()
    targets = ConversationTargets.of(material.batch, pair.ours.config.semantic_codebooks)
    conversational_loss(pair.ours.logits(material.batch), targets, VOICE_ONLY).total.backward()
    for ours, theirs in (
        (pair.ours.audio_embedding.weight, pair.theirs.backbone_model.embed_tokens.embed_audio_tokens.weight),
        (pair.ours.text_embedding.weight, pair.theirs.embed_text_tokens.weight),
        (pair.ours.depth_decoder.heads, pair.theirs.depth_decoder.codebooks_head.weight),
        (
            pair.ours.depth_decoder.projection.weight,
            pair.theirs.depth_decoder.model.inputs_embeds_projector.weight,
        ),
    ):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_share_of_the_frames_is_theirs_too(pair, material) -> None:
    """Frames left out of the depth decoder, as their processor marks them, leave the mean over the others."""
    torch.manual_seed(0)
    labels = material.inputs["labels"].clone()
    frames = (labels == 2).nonzero()
    dropped = frames[torch.randperm(len(frames))[: len(frames) // 2]]
    labels[dropped[:, 0], dropped[:, 1]] = -101
    theirs = pair.theirs(**{**material.inputs, "labels": labels})
    kept = unpadded((labels != -100) & (labels != -101), material.inputs).roll(-1, 0)
    batch = replace(material.batch, depth_rows=kept.nonzero()[:, 0])
    output = pair.ours.logits(batch)
    torch.testing.assert_close(output.depth, theirs.depth_decoder_logits, atol=1e-5, rtol=0)
    ours = conversational_loss(output, ConversationTargets.of(batch, 1), VOICE_ONLY)
    assert float(ours.total) == pytest.approx(float(theirs.loss), abs=2e-6)


def generate(pair: Pair, inputs: dict, frames: int) -> torch.Tensor:
    """Their greedy frames, [B, frames, K]."""
    prompt = {name: value for name, value in inputs.items() if name != "labels"}
    return pair.theirs.generate(
        **prompt, max_new_tokens=frames, do_sample=False, depth_decoder_do_sample=False
    )


def greedy(
    model: CSMModel,
    context: list[TurnFrames],
    text: str,
    speaker: int,
    frames: int,
    static: bool | None = None,
) -> torch.Tensor:
    """Our greedy frames, [K, frames at most]."""
    sampling = SamplingConfig(temperature=0.0, max_seconds=frames / 12.5, extra_codes=True)
    session = Session(model, sampling, static=static)
    for turn in context:
        session.listen(turn)
    said = list(session.speak(text, speaker))
    return torch.stack(said, dim=1) if said else torch.zeros(model.config.num_codebooks, 0).long()


def prompts(pair: Pair, turns: list[list[TurnFrames]], asked: list[tuple[str, int]]) -> dict:
    """Their inputs for conversations that go on with a text; without turns, for texts alone."""
    mimi = MimiTokenizer(pair.theirs.codec_model)
    texts, audio = [], []
    for said, (text, speaker) in zip(turns, asked, strict=True):
        prompt = ""
        for turn in said:
            prompt += f"<|begin_of_text|>[{turn.speaker}]{turn.text}<|end_of_text|><|AUDIO|><|audio_eos|>"
            audio.append(waveform_of(mimi, turn))
        texts.append(prompt + f"<|begin_of_text|>[{speaker}]{text}<|end_of_text|>")
    options = {"audio": audio} if audio else {}
    return dict(pair.processor(text=texts, **options, return_tensors="pt"))


def waveform_of(mimi: MimiTokenizer, turn: TurnFrames):
    """Noise that is encoded to a turn's codes: it is drawn again as `conversation` drew it."""
    generator = torch.Generator().manual_seed(sum(turn.id.encode()))
    return (0.1 * torch.randn(1920 * turn.codes.shape[1], generator=generator)).numpy()


def conversation(pair: Pair, parts: list[tuple[str, int, int]]) -> list[TurnFrames]:
    mimi = MimiTokenizer(pair.theirs.codec_model)
    turns = []
    for text, speaker, frames in parts:
        turn = TurnFrames(text, text, speaker, torch.zeros(1, frames))
        codes = mimi.encode(torch.from_numpy(waveform_of(mimi, turn)).view(1, 1, -1))[0][0]
        turns.append(turn._replace(codes=codes))
    return turns


@torch.no_grad()
def test_greedy_generation_is_theirs_frame_by_frame_in_a_batch_of_different_lengths(pair) -> None:
    turns = [conversation(pair, parts) for parts in CONVERSATIONS]
    asked = [("what now", 1), ("go on and on", 2)]
    theirs = generate(pair, prompts(pair, turns, asked), 10)
    for index, (context, (text, speaker)) in enumerate(zip(turns, asked, strict=True)):
        ours = greedy(pair.ours, context, text, speaker, 10)
        assert ours.shape[1] == 10, "ended early: choose another seed"
        assert torch.equal(ours.T, theirs[index])
        assert ours.unique().numel() > 8
        # At fixed shapes and addresses too, as CUDA graphs compute it.
        assert torch.equal(greedy(pair.ours, context, text, speaker, 10, static=True), ours)


@torch.no_grad()
def test_generation_from_text_alone_ends_where_theirs_ends(tmp_path) -> None:
    """Of few codes, so that rows of zeros come by chance."""
    pair = make_pair(tmp_path, vocab=5, codebooks=3, scaled=True, seed=0)
    ended = []
    for text in ("a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"):
        theirs = generate(pair, prompts(pair, [[]], [(text, 0)]), 12)[0]
        ours = greedy(pair.ours, [], text, 0, 12)
        # Theirs stops at zeros in all codebooks but the last, ours (as Sesame's) at zeros in all.
        almost = (theirs[:, :-1] == 0).all(1) & (theirs[:, -1] != 0)
        ends = (theirs == 0).all(1).nonzero()
        if almost.any():
            continue
        length = int(ends[0]) if len(ends) else len(theirs)
        assert torch.equal(ours.T, theirs[:length])
        assert torch.equal(greedy(pair.ours, [], text, 0, 12, static=True), ours)
        ended.append(length)
    assert min(ended) < 12 < sum(ended), "no conversation ended by zeros: choose another seed"


@torch.no_grad()
def test_added_parts_change_no_bit_before_they_are_trained(pair, material) -> None:
    """The whole model with closed gates against a model that was built without the added layers."""
    bare_config = replace(pair.ours.config, cross_layers=(), memory_layers=())
    bare = CSMModel.from_pretrained(pair.folder, config=bare_config)
    assert pair.ours.config.cross_layers and pair.ours.config.memory_layers
    builder = pair.ours.new_rows()
    for turns in material.turns:
        builder.begin_sequence(material.turns[0])
        for turn in turns:
            builder.add_spoken(turn)
            builder.add_transcribed(turn)
    batch = builder.build()
    ours, plain = pair.ours.logits(batch), bare.logits(batch)
    for name, value in vars(ours).items():
        if value is not None:
            assert torch.equal(value, getattr(plain, name)), name
    assert not ours.prosody.any() and not ours.duration.any() and not pair.ours.predicts_durations()
    speech = [greedy(model, material.turns[0], "what now", 1, 6) for model in (pair.ours, bare)]
    assert torch.equal(*speech)


def test_a_step_of_training_opens_the_gates(pair, material) -> None:
    model = CSMModel.from_pretrained(pair.folder)
    builder = model.new_rows()
    builder.begin_sequence(material.turns[0])
    builder.add_spoken(material.turns[0][0])
    batch = builder.build()
    targets = ConversationTargets.of(batch, 1)
    conversational_loss(model.logits(batch), targets).total.backward()
    gates = {n: p for n, p in model.named_parameters() if n.endswith("gate") and "text_reads" not in n}
    assert len(gates) == 3  # voice reads, its own frame's text, memory
    for name, gate in gates.items():
        assert not gate.any() and gate.grad.any(), name


@torch.no_grad()
def test_positions_far_out_are_theirs(pair) -> None:
    """Rows near the end of the context, which is 2048 rows."""
    rows = 1800
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 26, (rows, pair.ours.config.num_codebooks), generator=generator)
    turn = TurnFrames("long", "far out", 0, codes.T)
    batch = rows_of(pair.ours, [[turn]])
    hidden = pair.ours.hidden_rows(batch)[-5:]
    embedded = pair.ours.embed_rows(batch.text, batch.codes)
    theirs = pair.theirs.backbone_model(inputs_embeds=embedded.unsqueeze(0)).last_hidden_state[0, -5:]
    scaled = pair.ours.config.rope_scaling != 1
    torch.testing.assert_close(hidden, theirs, atol=1e-5 if scaled else 1e-4, rtol=0)


@torch.no_grad()
def test_batched_encoding_is_that_of_each_item_alone_and_theirs(pair) -> None:
    """Whole frames; Sesame's tokenizer fills a last frame with silence and so does ours."""
    mimi = MimiTokenizer(pair.theirs.codec_model)
    generator = torch.Generator().manual_seed(2)
    lengths = torch.tensor([9600, 1920, 5000, 3840])
    audio = 0.1 * torch.randn(4, 1, 9600, generator=generator)
    audio *= torch.arange(9600) < lengths.view(-1, 1, 1)
    codes, info = mimi.encode(audio, lengths)
    assert info.frames.tolist() == [5, 1, 3, 2] and codes.unique().numel() > 8
    for item, (samples, frames) in enumerate(zip(lengths.tolist(), info.frames.tolist(), strict=True)):
        alone, _ = mimi.encode(audio[item : item + 1, :, :samples])
        assert torch.equal(alone[0], codes[item, :, :frames])
        theirs = pair.theirs.codec_model.encode(audio[item : item + 1, :, :samples]).audio_codes[0]
        whole = samples // 1920
        assert torch.equal(theirs[:, :whole], codes[item, :, :whole])


@torch.no_grad()
def test_the_mimi_of_a_csm_folder_is_read_from_it(pair, tmp_path) -> None:
    mimi = MimiTokenizer.from_pretrained(pair.folder)
    audio = 0.1 * torch.randn(2, 1, 5000, generator=torch.Generator().manual_seed(0))
    codes, _ = MimiTokenizer(pair.theirs.codec_model).encode(audio)
    assert torch.equal(mimi.encode(audio)[0], codes)
    # An export that took Mimi along is a whole folder too; one without it says so.
    pair.ours.save_pretrained(tmp_path / "with", "transformers", codec_from=pair.folder, shard_bytes=10**6)
    assert torch.equal(MimiTokenizer.from_pretrained(tmp_path / "with").encode(audio)[0], codes)
    pair.ours.save_pretrained(tmp_path / "without", "transformers")
    with pytest.raises(ValueError, match="no complete Mimi in"):
        MimiTokenizer.from_pretrained(tmp_path / "without")


def test_input_that_csm_1b_cannot_take_is_refused_with_what_to_do(pair, material) -> None:
    model, turn = pair.ours, material.turns[0][0]
    last = model.config.audio_vocab_size - 1
    for codes in (torch.full_like(turn.codes, last + 1), torch.full_like(turn.codes, -1)):
        with pytest.raises(ValueError, match=f"codes range over .*expected 0..{last}"):
            model.new_rows().add_spoken(turn._replace(codes=codes))
        with pytest.raises(ValueError, match="codes range over"):
            Session(model).listen(turn._replace(codes=codes))
    with pytest.raises(ValueError, match="voice_codes range over"):
        model(["hi"], torch.full((1, model.config.num_codebooks, 2), last))
    with pytest.raises(ValueError, match="K >="):
        model.new_rows().add_spoken(turn._replace(codes=turn.codes[:-1]))
    with pytest.raises(ValueError, match="speaker is -1: expected 0 or above"):
        Session(model).speak("hi", -1)
    with pytest.raises(ValueError, match="max_context is 2048 rows: split it into sentences"):
        Session(model).speak("a" * 2048, 0)
    with pytest.raises(ValueError, match="max_context is 2048: cut the conversation"):
        model.logits(rows_of(model, [[turn._replace(codes=turn.codes.repeat(1, 1000))]]))
    with pytest.raises(ValueError, match="text_tokens range over 999..999"):
        model(torch.full((1, 3), 999))


@torch.no_grad()
def test_without_a_trained_duration_head_a_turn_may_be_as_short_and_as_long_as_csm_1bs(pair) -> None:
    """Neither a share of an expected length nor a multiple of it bounds it; both do where one is given."""
    assert greedy(pair.ours, [], "hi", 0, 100).shape[1] == 100
    session = Session(pair.ours, SamplingConfig(temperature=0.0, extra_codes=True))
    assert len(list(session.speak("hi", 0, frames=5))) == 22
