"""A voice folder is read in one place: csm-1b in three layouts speaks, streams and answers as ours does."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from csm.generation.prompt_turn import PromptTurn, encoded_prompt
from csm.generation.talker import Talker
from csm.generation.voice_folder import is_csm_1b, published_sampling
from csm.network.io import checkpoints
from csm.tokenizer.mimi import MimiTokenizer
from tests.small_csm_1b import CODEBOOKS, write_csm_1b, write_tokenizer

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")
TEXT = "Hello there. Who are you?"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Returns the folder of the weights that the fixture csm_1b has."""
    return write_csm_1b(tmp_path_factory.mktemp("csm_1b") / "csm-1b")


def short(talker: Talker) -> Talker:
    return replace(talker, sampling=replace(talker.sampling, max_seconds=0.8, seed=3))


def converted(published, folder, layout):
    """Writes the model in another layout, with its Mimi beside the weights."""
    stored = checkpoints.read(published)
    checkpoints.write(folder, stored.config, stored.weights, layout)
    shutil.copy(published / "tokenizer.json", folder / "tokenizer.json")
    MimiTokenizer.from_pretrained(published).save_pretrained(folder / "tokenizer")
    return folder


def recording(seconds=0.4, rate=24_000):
    return 0.1 * torch.randn(1, round(seconds * rate), generator=torch.Generator().manual_seed(1))


def test_csm_1b_of_transformers_streams_what_mimi_decodes_as_a_whole(csm_1b):
    whole = csm_1b.generate(TEXT)
    stream = csm_1b.generate(TEXT, stream=True)
    chunks = list(stream)
    assert torch.equal(stream.codes, whole.codes) and {chunk.shape[1] for chunk in chunks} == {1920}
    decoded = csm_1b.tokenizer.decode(whole.codes[None])[0]
    assert whole.sample_rate == 24_000 and float(decoded.abs().max()) > 1e-3
    torch.testing.assert_close(torch.cat(chunks, dim=1), decoded, atol=1e-5, rtol=0)
    assert len(csm_1b.pause) == 2 and csm_1b.pause[0].shape == (CODEBOOKS,)


@pytest.mark.parametrize("layout", ["sesame", "csm"])
def test_every_layout_speaks_the_same(published, csm_1b, layout, tmp_path):
    folder = converted(published, tmp_path / layout, layout)
    assert is_csm_1b(folder) and is_csm_1b(published)
    other = short(Talker.from_pretrained(folder))
    said, expected = other.generate(TEXT, "1"), csm_1b.generate(TEXT, "1")
    assert torch.equal(said.codes, expected.codes) and torch.equal(said.waveform, expected.waveform)


def test_its_speakers_are_numbers_and_a_prompt_lends_its_voice_to_the_first(csm_1b):
    assert list(csm_1b.voices) == [str(number) for number in range(10)]
    one, other = csm_1b.generate("Hello.", "0"), csm_1b.generate("Hello.", "7")
    assert not torch.equal(one.codes[:, :5], other.codes[:, :5])
    prompt = PromptTurn("La la.", recording(), 24_000)
    earlier = PromptTurn("Good morning.", recording(0.3), 24_000, speaker="1")
    session = csm_1b.session()
    stream = csm_1b.generate("Hello.", prompt=prompt, context=[earlier], session=session, stream=True)
    stream.whole()
    assert [turn.turn.speaker for turn in session.turns] == [1, 0, 0]
    assert [turn.turn.text for turn in session.turns] == ["Good morning.", "La la.", "Hello."]
    with pytest.raises(ValueError, match="speaker is 'JOE': expected one of 0, 1"):
        csm_1b.generate("Hello.", "JOE")


def test_the_other_side_of_a_conversation_has_another_number(csm_1b):
    turn = PromptTurn("La la.", recording(), 24_000)
    number = {}
    for name in ("0", "1"):
        voice = csm_1b.voice(name)
        frames, _ = encoded_prompt(turn, csm_1b.tokenizer, csm_1b.voices, CODEBOOKS, beside=voice)
        number[name] = frames.speaker
    assert number == {"0": 1, "1": 0}
    alone = {"3": csm_1b.voices["3"]}
    frames, _ = encoded_prompt(turn, csm_1b.tokenizer, alone, CODEBOOKS, beside=alone["3"])
    assert frames.speaker == 4


def test_many_at_once_say_what_each_says_alone(csm_1b):
    texts, speakers, seeds = ["Hello.", "How are you?", "Quite well"], ["0", "1", None], [1, 2, 3]
    together = csm_1b.generate_many(texts, speakers, seeds)
    for text, speaker, seed, said in zip(texts, speakers, seeds, together, strict=True):
        alone = csm_1b.generate(text, speaker, seed=seed)
        assert torch.equal(said.codes, alone.codes)
        torch.testing.assert_close(said.waveform, alone.waveform, atol=1e-5, rtol=0)


def test_stopped_between_frames_it_keeps_what_was_said(csm_1b):
    session = csm_1b.session()
    stream = csm_1b.generate("Hello there.", session=session, stream=True)
    for _ in range(3):
        next(stream)
    stream.close()
    (turn,) = session.turns
    assert torch.equal(turn.turn.codes, stream.codes) and 3 <= stream.codes.shape[1] <= 5
    assert csm_1b.generate("More.", session=session).codes.shape[1] > 0


@pytest.mark.parametrize("half", [False, True])
def test_a_saved_voice_is_read_with_its_mimi(csm_1b, half, tmp_path):
    csm_1b.save_pretrained(tmp_path / "voice", half=half)
    again = Talker.from_pretrained(tmp_path / "voice")
    assert again.sampling == csm_1b.sampling and list(again.voices) == list(csm_1b.voices)
    said, expected = again.generate("Hello."), csm_1b.generate("Hello.")
    assert said.codes.shape[1] > 0
    if not half:
        assert torch.equal(said.codes, expected.codes) and torch.equal(said.waveform, expected.waveform)
    codes = expected.codes[None]
    torch.testing.assert_close(again.tokenizer.decode(codes), csm_1b.tokenizer.decode(codes), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (None, (0.9, 0.9, 50)),
        ({}, (0.9, 0.9, 50)),
        ({"temperature": 0.7, "top_k": 20, "depth_decoder_temperature": 0.5}, (0.7, 0.5, 20)),
        ({"do_sample": False, "depth_decoder_do_sample": True}, (0.0, 0.9, 50)),
    ],
)
def test_sampling_is_the_one_of_the_folder(tmp_path, written, expected):
    if written is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(written))
    found = published_sampling(tmp_path)
    assert (found.temperature, found.later_temperature, found.top_k) == expected


def test_a_folder_that_is_not_there_is_refused_with_the_packaged_names(tmp_path):
    with pytest.raises(ValueError, match=r"no folder .*packaged voice \(telephone, wideband\)$"):
        Talker.from_pretrained(tmp_path / "nothing like it")
    with pytest.raises(ValueError, match=r"; am_michael is a speaker of the voice wideband$"):
        Talker.from_pretrained("am_micheal")


def test_what_is_missing_is_named(published, tmp_path):
    folder = converted(published, tmp_path / "sesame", "sesame")
    shutil.move(folder / "tokenizer", tmp_path / "mimi")
    with pytest.raises(ValueError, match="no Mimi in .*hf download kyutai/mimi"):
        Talker.from_pretrained(folder)
    shutil.move(tmp_path / "mimi", folder / "tokenizer")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"no tokenizer\.json in"):
        Talker.from_pretrained(folder)
    write_tokenizer(folder / "tokenizer.json")
    (folder / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no voice in .*expected voices\.json"):
        Talker.from_pretrained(folder)
    (folder / "run.json").unlink()
    (folder / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="expected a JSON object"):
        Talker.from_pretrained(folder)


def test_a_mimi_of_other_codes_is_refused(published, tmp_path):
    folder = converted(published, tmp_path / "csm", "csm")
    path = folder / "tokenizer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_quantizers": 3}))
    with pytest.raises(ValueError, match="n_codebooks is 4: expected 2 to 3"):
        Talker.from_pretrained(folder)
