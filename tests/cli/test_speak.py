"""`csm speak`: its options reach the talker."""

import argparse

import numpy as np
import pytest
import soundfile

from csm.cli.speak import add_arguments, run
from tests.evaluation.small_voice import small_talker

TEXT = "You and whose army?"


def command(*arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def talker(tiny_model):
    return small_talker(tiny_model, model=tiny_model(max_context=320, letters_per_frame=2))


def test_candidates_and_guidance_are_those_of_the_talker(talker, tmp_path, capsys) -> None:
    talker.save_pretrained(tmp_path / "voice")
    given = ["--voice", tmp_path / "voice", "--quiet", "--seed", "4", "--guidance", "0.7", "--output"]
    heard = []
    for number, more in enumerate(([], ["--candidates", "3", "--reader", "model"])):
        command(TEXT, *given, tmp_path / f"{number}.wav", *more)
        heard.append(soundfile.read(tmp_path / f"{number}.wav", dtype="float32")[0])
    sampling = talker.sampling.__class__(max_seconds=0.8, seed=4, guidance=0.7)
    guided = talker.__class__(
        model=talker.model, tokenizer=talker.tokenizer, voices=talker.voices, sampling=sampling
    )
    own = [guided.generate(TEXT), guided.generate(TEXT, candidates=3, reader="model")]
    for samples, speech in zip(heard, own, strict=True):
        np.testing.assert_allclose(samples, speech.waveform[0].numpy(), atol=1e-4)
    assert "0.wav: JOE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--candidates", "0"], "candidates is 0: expected 1 or more"),
        (["--guidance", "-1"], "guidance is -1.0: expected 0"),
    ],
)
def test_bad_values_are_named(talker, tmp_path, more, message) -> None:
    talker.save_pretrained(tmp_path / "voice")
    with pytest.raises(ValueError, match=message):
        command(TEXT, "--voice", tmp_path / "voice", "--quiet", "--output", tmp_path / "x.wav", *more)
    assert not (tmp_path / "x.wav").exists()
