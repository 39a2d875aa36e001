"""The whole chain, one process a command: prepare, train the tokenizer, encode, train, speak, converse.

What a command only says or refuses is asked for inside this process: importing torch takes seconds.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file

from csm.cli import COMMANDS as CSM_COMMANDS
from csm.cli import main
from csm.data.code_companions import read_alignment, read_code_vectors
from csm.data.manifest import read_corpus, write_manifest
from csm.evaluation.subjects.speech_folder import read_speech_folder
from csm.generation.speech import Timing
from csm.system.digests import record_digests

ROOT = Path(__file__).resolve().parents[2]
# Files of launch/ and the subcommands of csm that they stand for.
COMMANDS = {
    "converse": "converse",
    "convert_checkpoint": "convert",
    "encode_corpus": "encode",
    "evaluate_conversation": "evaluate-conversation",
    "evaluate_speech": "evaluate",
    "export_corpus": "export corpus",
    "export_tokenizer": "export tokenizer",
    "export_voice": "export voice",
    "generate_speech": "generate",
    "prepare_data": "prepare",
    "research": "research",
    "serve": "serve",
    "speak": "speak",
    "train": "train",
    "train_semantic": "train-semantic",
    "train_tokenizer": "train-tokenizer",
    "transcribe": "transcribe",
}
KEPT = {"BOB2": 30, "DESC019": 8, "DESC004": 8, "BOB1": 30, "DESC001": 23, "DESC003": 30}

Done = subprocess.CompletedProcess


def environment() -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii"}


def launch(name: str, *arguments: object, launcher: tuple[str, ...] = (), stdin: str = "") -> Done:
    command = [*(launcher or (sys.executable,)), str(ROOT / "launch" / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, env=environment(), timeout=240, check=False
    )


def finished(done: Done) -> Done:
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def inside(name: str, *arguments: object) -> Done:
    """The subcommand behind the file, in this process."""
    out, err = StringIO(), StringIO()
    words = [*COMMANDS[name].split(), *map(str, arguments)]
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main(words)
        except SystemExit as end:
            status = end.code
    return Done(words, status, out.getvalue(), err.getvalue())


def refusal(name: str, *arguments: object) -> str:
    """The one line on stderr of a command that refuses its input with status 2."""
    done = inside(name, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.strip()]
    assert line.startswith(f"csm {COMMANDS[name]}: ")
    return line


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Commands choose the number of threads of their process; here it is the tests'."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes()) for path in files
    }


class Chain:
    """The commands of `make train` at their smallest, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.corpus, self.run = folder / "corpus", folder / "run"
        self.recipe = ("--recipe", "tiny", "--set", f"corpus={self.corpus}")

    def prepare(self, whole: Path) -> None:
        """A few conversations of the excerpt, cut short."""
        finished(launch("prepare_data", "--corpus", "amazon_queen_excerpt", "--output", whole))
        corpus = read_corpus(whole)
        kept = [replace(c, turns=c.turns[: KEPT[c.id]]) for c in corpus.conversations if c.id in KEPT]
        for turn in (turn for conversation in kept for turn in conversation.turns):
            (self.corpus / turn.audio).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(whole / turn.audio, self.corpus / turn.audio)
        write_manifest(self.corpus / "manifest.jsonl", kept)
        (self.corpus / "corpus.json").write_text(
            json.dumps({"name": "cut", "consent": {"JOE": "signed 2026-11-01"}})
        )

    def commands(self) -> tuple[tuple[object, ...], ...]:
        """What `make train` calls, without the preparation and the evaluation."""
        tokenizer, codes = self.run / "tokenizer", self.run / "codes"
        return (
            ("train_tokenizer", *self.recipe, "--output", tokenizer),
            ("encode_corpus", *self.recipe, "--tokenizer", tokenizer, "--output", codes),
            ("train", *self.recipe, "--output", self.run),
            ("generate_speech", "--run", self.run),
        )


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("chain")
    made = Chain(folder)
    made.prepare(folder / "whole")
    for command in made.commands():
        finished(launch(*command))
    return made


@pytest.mark.processes
def test_the_chain_ends_with_speech_that_can_be_evaluated(chain):
    folder = read_speech_folder(chain.run / "speech")
    assert len(folder.lines) == 8 and len(folder.dialogues) == 2
    assert {line.speaker for line in folder.lines} == {"JOE"}
    assert {"BOB2", "DESC019"} == {line.conversation for line in folder.lines}
    ends, vectors = read_alignment(chain.run / "codes", "bytes"), read_code_vectors(chain.run / "codes")
    for turn in (turn for turn in read_corpus(chain.corpus).turns() if turn.text.strip()):
        assert len(ends[turn.id]) == len(turn.text.strip().encode()) + 2
        assert float(ends[turn.id][-1]) == pytest.approx(12.5 * turn.duration, abs=0.25)
    assert vectors is not None and vectors.ndim == 3
    for utterance in (*folder.lines, *folder.turns):
        for name in utterance.audio.values():
            info = soundfile.info(folder.root / name)
            assert (info.samplerate, info.channels) == (11_025, 1) and info.frames
        timing = utterance.timing
        assert set(timing) == {*Timing._fields}
        assert 0 < timing["first_audio_s"] <= timing["generation_s"]
        spoken = soundfile.info(folder.root / utterance.audio["generated"])
        assert timing["audio_s"] == pytest.approx(spoken.duration, abs=1e-4)
        assert timing["frames"] * 882 == spoken.frames and timing["ended"] in ("end_code", "limit")


@pytest.mark.processes
def test_a_dialogue_has_a_channel_for_each_voice_and_its_turns_in_place(chain):
    folder = chain.run / "speech"
    rows = [json.loads(line) for line in (folder / "speech.jsonl").read_text().splitlines()]
    for dialogue in (row for row in rows if row["kind"] == "dialogue"):
        assert dialogue["speakers"] == ["JOE", "BOB"]
        turns = [row for row in rows if row.get("dialogue") == dialogue["id"]]
        assert 6 <= len(turns) <= 8 and [turn["turn"] for turn in turns] == list(range(len(turns)))
        for condition, start, end, gap in (
            ("generated", "start", "end", 0.2),
            ("recording", "recording_start", "recording_end", 0.0),
        ):
            whole, rate = soundfile.read(folder / dialogue[condition])
            assert whole.shape[1] == 2 and len(whole) / rate == pytest.approx(turns[-1][end], abs=1e-3)
            for turn, following in zip(turns, turns[1:], strict=False):
                assert following[start] - turn[end] == pytest.approx(gap, abs=2e-3)
            for turn in turns:
                clip, _ = soundfile.read(folder / turn[condition])
                channel = dialogue["speakers"].index(turn["speaker"])
                first = round(turn[start] * rate)
                assert (whole[first : first + len(clip), channel] == clip).all()
                assert not whole[first : first + len(clip), 1 - channel].any()


@pytest.mark.processes
def test_every_step_called_again_says_that_it_is_complete_and_changes_nothing(chain):
    before = contents(chain.run)
    for command in chain.commands():
        done = finished(inside(*command))
        assert "nothing to do" in done.stdout + done.stderr
    assert contents(chain.run) == before


@pytest.mark.processes
def test_a_demonstration_that_was_cut_off_resumes_where_it_was(chain, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(chain.run, run)
    speech = run / "speech"
    (speech / "speech.jsonl").rename(speech / "speech.jsonl.part")
    (speech / "line_03.generated.wav").unlink()
    before = contents(speech)
    # In a process of its own: a training in this one changes the last bit of what it speaks (docs/LOG.md).
    finished(launch("generate_speech", "--run", run, "--corpus", chain.corpus))
    after = contents(speech)
    assert set(after) == {*before, "speech.jsonl", "line_03.generated.wav"} - {"speech.jsonl.part"}
    changed = {name for name in {*before} & {*after} if before[name][0] != after[name][0]}
    assert changed == {"line_03.recording.wav", "line_03.resynthesis.wav"}
    original = chain.run / "speech" / "line_03.generated.wav"
    assert after["line_03.generated.wav"][1] == original.read_bytes(), "the same seed says the same"


@pytest.mark.processes
def test_one_line_is_said_by_whom_one_likes(chain, tmp_path):
    wav = tmp_path / "said.wav"
    say = ("generate_speech", "--run", chain.run, "--text", "Hello, my name is Bob.")
    done = finished(inside(*say, "--speaker", "BOB", "--output", wav))
    assert f"{wav}: BOB," in done.stdout and soundfile.info(wav).frames
    assert refusal(*say, "--speaker", "GODOT").endswith("expected one of JOE, BOB")


@pytest.fixture(scope="module")
def voice(chain, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("voice") / "mine"
    done = finished(inside("export_voice", "--run", chain.run, "--output", folder))
    assert f"{folder}: 2 voices" in done.stdout
    # The recordings of the test's folder have no licence, and JOE has given his consent.
    assert "no consent of BOB is on record" in done.stderr
    rows = json.loads((folder / "voices.json").read_text())
    assert rows["JOE"]["consent"] == "signed 2026-11-01" and "consent" not in rows["BOB"]
    return folder


@pytest.mark.processes
def test_an_exported_voice_speaks_without_its_run(voice, tmp_path):
    say = ("speak", "--voice", voice, "--quiet", "--output")
    assert finished(inside("speak", "--voice", voice, "--list")).stdout.split() == ["JOE", "BOB"]
    done = finished(inside(*say, tmp_path / "one.wav", "Hello. My name is Bob.", "--speaker", "BOB"))
    assert "one.wav: BOB," in done.stdout
    finished(launch(*say, tmp_path / "two.wav", "--speaker", "BOB", "-", stdin="Hello.\nMy name is Bob.\n"))
    assert (tmp_path / "one.wav").read_bytes() == (tmp_path / "two.wav").read_bytes()
    prompted = ("--prompt", tmp_path / "one.wav", "--prompt-text", "Hello. My name is Bob.")
    assert "three.wav: prompt," in finished(inside(*say, tmp_path / "three.wav", *prompted, "Yes.")).stdout
    for words, answer in (
        ((), "no text"),
        ((" ",), "text is empty"),
        (("Hi.", "--speaker", "BOBB"), "did you mean BOB?"),
        (("Hi.", *prompted[:2]), "text of a prompt or earlier turn is empty"),
        (("x" * 10_000,), "a word of 10000 characters"),
    ):
        assert answer in refusal(*say, tmp_path / "none.wav", *words)
    assert {path.name for path in tmp_path.iterdir()} == {"one.wav", "two.wav", "three.wav"}


@pytest.mark.processes
def test_a_training_goes_on_from_a_voice_and_its_speakers_keep_their_numbers(chain, voice, tmp_path):
    rows = json.loads((voice / "voices.json").read_text())
    rows["BOB"]["number"], rows["JOE"]["number"] = 5, 3
    moved = tmp_path / "moved"
    shutil.copytree(voice, moved)
    (moved / "voices.json").write_text(json.dumps(rows))
    record_digests(moved, ["voices.json"])
    run = tmp_path / "run"
    shutil.copytree(chain.run / "codes", run / "codes")
    shutil.copytree(chain.run / "tokenizer", run / "tokenizer")
    finished(inside("train", *chain.recipe, "--set", f"model_start={moved}", "--output", run))
    finished(inside("export_voice", "--run", run, "--output", tmp_path / "again"))
    again = json.loads((tmp_path / "again" / "voices.json").read_text())
    assert {name: row["number"] for name, row in again.items()} == {"JOE": 3, "BOB": 5}


@pytest.mark.processes
def test_a_typed_conversation_is_spoken_turn_by_turn(chain, tmp_path):
    output = tmp_path / "talk"
    typed = "Hi Joe, how are you?\n\nNot too bad.\nJOE: Anything else?\n"
    finished(launch("converse", "--run", chain.run, "--output", output, stdin=typed))
    rows = [json.loads(line) for line in (output / "transcript.jsonl").read_text().splitlines()]
    assert [(row["speaker"], row["text"]) for row in rows] == [
        ("BOB", "Hi Joe, how are you?"),
        ("JOE", "Not too bad."),
        ("JOE", "Anything else?"),
    ]
    assert all(soundfile.info(output / row["audio"]).frames for row in rows)
    lines = tmp_path / "lines.txt"
    lines.write_text(typed)
    arguments = ("converse", "--run", chain.run, "--lines", lines)
    assert "holds a conversation" in refusal(*arguments, "--output", output)
    finished(launch(*arguments, "--output", tmp_path / "again"))
    for row in rows:
        assert (output / row["audio"]).read_bytes() == (tmp_path / "again" / row["audio"]).read_bytes()


def deepspeed() -> tuple[str, ...]:
    """The words that start two ranks with DeepSpeed's launcher."""
    program = Path(sys.executable).with_name("deepspeed")
    if not program.exists():
        pytest.skip("deepspeed is not installed")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    return (str(program), "--master_port", str(port), "--num_accelerators", "2")


@pytest.mark.processes
def test_two_ranks_whose_batches_use_different_parts_train_the_same_model(chain, tmp_path):
    # So few turns are transcribed that in most steps only one rank has one, or none has.
    sets = ("--set", "data.transcribe_share=0.05", "--set", "training.log_every=6")
    arguments = ("train", *chain.recipe, *sets, "--codes", chain.run / "codes", "--output")
    finished(launch(*arguments, tmp_path / "two", launcher=deepspeed()))
    finished(launch(*arguments, tmp_path / "ranks", "--ranks", "2"))
    finished(launch(*arguments, tmp_path / "one"))
    one, two, ranks = (
        load_file(tmp_path / folder / "model.safetensors") for folder in ("one", "two", "ranks")
    )
    assert all((one[name] - two[name]).abs().max() < 1e-4 for name in one)
    assert all(torch.equal(ranks[name], two[name]) for name in two)


@pytest.mark.processes
def test_an_error_of_two_ranks_is_one_line(tmp_path):
    words = ("train", "--recipe", "tiny", "--set", f"corpus={tmp_path / 'nowhere'}", "--output", tmp_path)
    done = launch(*words, "--ranks", "2")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("csm train: ") and len(done.stderr.splitlines()) == 1, done.stderr
    done = launch(*words, launcher=deepspeed())
    assert done.returncode == 2
    assert len(re.findall("^csm train", done.stderr, re.M)) == 1, "rank 0 speaks for all"


@pytest.mark.processes
def test_another_run_s_folder_is_refused_in_one_line(chain):
    before = contents(chain.run)
    tokenizer, codes, train, speak = chain.commands()
    assert "training.steps: 6 there, 7 here" in refusal(*train, "--set", "training.steps=7")
    assert "utterances.items: 4 there, 5 here" in refusal(*tokenizer, "--set", "utterances.items=5")
    assert "sampling" in refusal(*speak, "--temperature", "0.1")
    assert contents(chain.run) == before


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches_by_an_example(name):
    done = finished(inside(name, "--help"))
    assert f"csm {COMMANDS[name]} " in done.stdout.partition("\n\n")[2]


def test_every_command_has_a_file_for_launchers():
    assert {path.stem for path in (ROOT / "launch").glob("*.py")} == set(COMMANDS)
    assert set(COMMANDS.values()) == set(CSM_COMMANDS)
    for file, command in COMMANDS.items():
        words = ", ".join(f'"{word}"' for word in command.split())
        assert f"main([{words}, *sys.argv[1:]])" in (ROOT / "launch" / f"{file}.py").read_text()


def test_bad_input_is_one_line_that_says_what_to_do(tmp_path):
    output = ("--output", tmp_path / "run")
    recipe = refusal("train", "--recipe", "quickstrat", *output)
    assert "unknown recipe 'quickstrat'; did you mean quickstart?" in recipe
    field = refusal("train", "--recipe", "tiny", "--set", "training.stesp=1", *output)
    assert "unknown field; did you mean" in field
    missing = ("--set", f"corpus={tmp_path / 'nowhere'}")
    assert "csm prepare" in refusal("train_tokenizer", "--recipe", "tiny", *missing, *output)
    assert "csm prepare" in refusal("encode_corpus", "--recipe", "tiny", *missing, *output)
    assert "launch/train.py" in refusal("generate_speech", "--run", tmp_path / "run")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
