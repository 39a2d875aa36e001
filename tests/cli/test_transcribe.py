"""`csm transcribe`: text appears while it is heard, the last of it is what the model writes of the whole."""

import json

import pytest
import torch

from csm.audio.files import read_audio, write_audio
from csm.cli import main
from csm.generation.sampling import SamplingConfig
from csm.generation.session import Session
from csm.generation.talker import Talker
from csm.generation.voices import Voice
from csm.network.letter_head import LetterHead
from tests.small_tokenizer import small_tokenizer


@pytest.fixture
def files(tiny_model, tmp_path):
    """Returns a function that writes a voice of a random model, and a recording of a second of noise."""

    def make(**changes):
        torch.manual_seed(1)
        voices = {"JOE": Voice("JOE", 0, torch.eye(8)[:1], torch.eye(4)[:1])}
        talker = Talker(
            model=tiny_model(**changes),
            tokenizer=small_tokenizer(8000),
            voices=voices,
            sampling=SamplingConfig(),
        )
        talker.save_pretrained(tmp_path / "voice")
        write_audio(tmp_path / "turn.wav", 0.1 * torch.randn(1, 8000), 8000)
        return str(tmp_path / "turn.wav"), str(tmp_path / "voice")

    return make


def written(file: str, voice: str) -> str:
    """Returns what the model writes of the whole recording."""
    talker = Talker.from_pretrained(voice)
    audio = read_audio(file, sample_rate=8000)
    with torch.no_grad():
        codes, _ = talker.tokenizer.encode(audio[None], num_codebooks=5)
    return Session(talker.model).transcribe(codes[0])


def test_a_line_of_json_for_each_change_and_the_text_of_the_whole_at_the_end(files, capsys) -> None:
    file, voice = files(letters_per_frame=3)
    assert main(["transcribe", file, "--voice", voice, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    text = written(file, voice)
    assert rows[-1] == {"seconds": 1.04, "text": text, "final": True}
    times = [row["seconds"] for row in rows[:-1]]
    assert len(times) > 4 and times == sorted(set(times))
    assert times[0] == pytest.approx((LetterHead.AHEAD + 1) * 0.08), "once its neighbours have come"
    assert all(text.startswith(row["text"]) for row in rows)
    assert main(["transcribe", file, "--voice", voice]) == 0
    assert capsys.readouterr().out == f"{text}\n"


def test_a_model_without_a_letter_head_writes_at_the_end(files, capsys) -> None:
    file, voice = files()
    assert main(["transcribe", file, "--voice", voice, "--json"]) == 0
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert row == {"seconds": 1.04, "text": written(file, voice), "final": True}


def test_bad_input_is_one_line(files, capsys, tmp_path) -> None:
    file, voice = files()
    write_audio(tmp_path / "long.wav", torch.zeros(1, 8000 * 14), 8000)
    for words, message in [
        (["nowhere.wav", "--voice", voice], "nowhere.wav"),
        ([file, "--voice", voice, "--speaker", "JO"], "did you mean JOE?"),
        ([str(tmp_path / "long.wav"), "--voice", voice], "split it into turns"),
    ]:
        assert main(["transcribe", *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("csm transcribe: ") and message in line
