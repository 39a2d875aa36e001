"""The command: errors of one line, a help with all corpora, any terminal."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from csm.cli import main
from csm.data.consent import consents
from csm.data.manifest import read_corpus

TWICE = "import sys; from csm.cli import main; sys.exit(main(sys.argv[1:]) or main(sys.argv[1:]))"


def test_the_excerpt_is_prepared_on_a_terminal_without_utf8(tmp_path) -> None:
    output = tmp_path / "kör"
    words = ["prepare", "--corpus", "amazon_queen_excerpt", "--output", str(output)]
    variables = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TWICE, *words],
        capture_output=True,
        env={**os.environ, **variables},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    done.stderr.decode("ascii")
    # How the name is escaped depends on what the interpreter made of the locale.
    assert done.stdout.decode("ascii").count("1270 turns") == 2
    assert len(read_corpus(output).turns()) == 1270


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--corpus", "folder", "--output", "x"), "--source"),
        (("--corpus", "amazon_queen_excerpt"), "--output"),
        (
            ("--corpus", "recordings", "--output", "x", "--source", "."),
            "--output is x: expected a folder outside",
        ),
        (("--corpus", "ami", "--output", "x", "--source", "y"), "--source is"),
        (("--corpus", "ami", "--layout", "rttm", "--output", "x", "--source", "y"), "--layout is rttm"),
        (("--corpus", "amazon_queen", "--output", "x", "--archive", "none.deb"), "none.deb: no such file"),
        (("--corpus", "librispeech", "--output", "x", "--source", "y", "--subset", "z"), "expected one of"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(
    tmp_path, monkeypatch, capsys, arguments: tuple, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", *arguments]) == 2
    message = capsys.readouterr().err
    assert words in message and len(message.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_the_help_names_every_corpus_and_an_example(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    text = capsys.readouterr().out
    for word in (
        "amazon_queen_excerpt",
        "librispeech",
        "folder",
        "rejects.jsonl",
        "--archive",
        "synthetic_dialogues",
        "recordings",
        "dailytalk",
        "--transcribe",
        "--layout",
    ):
        assert word in text


def test_consent_is_entered_with_the_corpus_and_a_speaker_it_lacks_is_refused(tmp_path, capsys) -> None:
    source, output = tmp_path / "source", tmp_path / "corpus"
    source.mkdir()
    time = np.arange(16000) / 8000
    soundfile.write(source / "talk.wav", 0.3 * np.sin(2000 * time) * (1 + np.sin(20 * time)) / 2, 8000)
    turns = [{"speaker": "ANNA", "start": 0.0, "end": 1.5, "text": "Hello there."}]
    (source / "talk.json").write_text(json.dumps({"turns": turns}))
    words = ["prepare", "--corpus", "folder", "--source", str(source), "--output", str(output)]
    assert main([*words, "--consent", "ANNA=signed 2026-11-01"]) == 0
    assert consents(read_corpus(output)) == {"ANNA": "signed 2026-11-01"}
    # Later too: the corpus is kept as it is, and the statement is replaced.
    assert main([*words, "--consent", "ANNA=signed 2026-11-29"]) == 0
    assert consents(read_corpus(output)) == {"ANNA": "signed 2026-11-29"}
    capsys.readouterr()
    assert main([*words, "--consent", "GODOT=yes"]) == 2
    assert "--consent names 'GODOT': expected one of ANNA" in capsys.readouterr().err
