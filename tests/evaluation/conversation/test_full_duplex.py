"""Full-Duplex-Bench's folders are read, and its axes have no error of its scorer."""

import json

import numpy as np
import pytest
import soundfile
import torch

from csm.cli import main
from csm.evaluation.conversation.answering import Answers
from csm.evaluation.conversation.bench import Outcome
from csm.evaluation.conversation.full_duplex import (
    Sample,
    SystemSide,
    axes,
    of_bench,
    read_samples,
    read_words,
    score,
    score_all,
)
from csm.evaluation.conversation.stubs import IgnoresUsers

ANNOTATED = {
    "candor_pause_handling": ("pause.json", [{"text": "[PAUSE]", "timestamp": [1.0, 1.6]}]),
    "candor_turn_taking": ("turn_taking.json", [{"timestamp": [2.0, 2.4]}]),
    "synthetic_user_interruption": (
        "interrupt.json",
        [{"context": "Tell me.", "interrupt": "Wait.", "timestamp": [2.0, 3.0]}],
    ),
    "icc_backchannel": ("transcription.json", {"text": "", "chunks": []}),
}


@pytest.fixture
def bench(tmp_path):
    """Writes a sample of every axis: 1 s of speech-like noise in 5 s."""
    root = tmp_path / "bench"
    for axis, (file, content) in ANNOTATED.items():
        folder = root / axis / "7"
        folder.mkdir(parents=True)
        (folder / file).write_text(json.dumps(content))
        audio = np.zeros(5 * 16_000, np.float32)
        audio[8_000:24_000] = 0.1 * np.random.default_rng(0).standard_normal(16_000)
        soundfile.write(folder / "input.wav", audio, 16_000)
    return root


def sample(axis: str, event=None) -> Sample:
    return Sample(f"{axis}/1", axis, None, event)


def test_every_axis_of_a_folder_is_recognised_by_its_annotation(bench, tmp_path):
    found = {one.axis: one for one in read_samples(bench)}
    assert {axis: one.event for axis, one in found.items()} == {
        "pause_handling": (1.0, 1.6),
        "smooth_turn_taking": (2.0, 2.4),
        "user_interruption": (2.0, 3.0),
        "backchannel": None,
    }
    assert [one.name for one in read_samples(bench / "icc_backchannel")] == ["7"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no samples in .*input.wav"):
        read_samples(tmp_path / "empty")
    (bench / "candor_turn_taking" / "7" / "turn_taking.json").write_text("[{}]")
    with pytest.raises(ValueError, match="turn_taking.json has no .*timestamp"):
        read_samples(bench)


def test_a_latency_below_zero_stays_below_zero():
    early = score(sample("smooth_turn_taking", (2.0, 2.4)), SystemSide([(1.7, 3.5)], 5.0))
    assert early.takes_over and early.latency_ms == pytest.approx(-300)
    over = score(sample("user_interruption", (2.0, 3.0)), SystemSide([(0.5, 2.2), (2.8, 4.5)], 5.0))
    assert over.latency_ms == pytest.approx(-200) and over.stop_ms == pytest.approx(200)
    late = score(sample("smooth_turn_taking", (2.0, 2.4)), SystemSide([(2.5, 4.0)], 5.0))
    assert axes([early, late])["smooth_turn_taking"]["latency_ms"] == {"n": 2, "mean": 100.0}


def test_short_speech_takes_no_floor_and_many_words_do():
    brief = SystemSide([(3.0, 3.6)], 5.0)
    assert not score(sample("smooth_turn_taking", (2.0, 2.4)), brief).takes_over
    words = [(3.0 + 0.1 * n, 3.1 + 0.1 * n) for n in range(4)]
    assert score(sample("smooth_turn_taking", (2.0, 2.4)), brief._replace(words=words)).takes_over
    assert not score(sample("pause_handling", (1.0, 1.6)), brief._replace(words=words[:3])).takes_over
    assert score(sample("pause_handling", (1.0, 1.6)), SystemSide([(1.1, 1.3), (2.0, 2.3)], 5.0)).takes_over
    silent = score(sample("smooth_turn_taking", (2.0, 2.4)), SystemSide([], 5.0))
    assert not silent.takes_over and silent.latency_ms is None


def test_a_segment_that_takes_the_floor_is_not_forgotten_when_a_short_one_follows():
    long_then_short = SystemSide([(0.5, 2.5), (4.0, 4.4)], 6.0)
    found = score(sample("backchannel"), long_then_short, [1.0] * 30)
    assert found.takes_over and found.per_second == 0 and found.divergence == 1.0


def test_the_divergence_is_in_bits_and_no_distance():
    # Windows of 0.2 s: one backchannel in the first of 10, people in the second half alone: nothing shared.
    people = [0.0] * 5 + [1.0] * 6
    apart = score(sample("backchannel"), SystemSide([(0.1, 0.15)], 2.0), people)
    assert apart.divergence == pytest.approx(1.0) and apart.per_second == 0.5 and not apart.takes_over
    # Half of the mass is shared: JSD = 1 - (H(mix) - H) by hand, 0.3113 bits.
    half = score(sample("backchannel"), SystemSide([(0.1, 0.15), (0.21, 0.25)], 0.2), [1.0, 0.0])
    assert half.divergence == pytest.approx(0.3113, abs=1e-4)
    same = score(sample("backchannel"), SystemSide([(0.05, 0.1)], 0.2), [1.0, 0.0])
    assert same.divergence == pytest.approx(0.0, abs=1e-9)


def test_deleting_outputs_fails_samples_and_improves_nothing(bench):
    def side_of(one):
        if "turn_taking" in one.name:
            raise ValueError("no file")
        return SystemSide([(3.2, 4.9)], 5.0)

    found = axes(score_all(read_samples(bench), side_of, bench))
    missing = found["smooth_turn_taking"]
    assert (missing["n_in"], missing["n_ok"], [*missing["failed"].values()]) == (1, 0, ["no file"])
    assert missing["take_over_rate"] is None and found["user_interruption"]["n_ok"] == 1


def test_words_without_an_end_begin_where_they_end(tmp_path):
    path = tmp_path / "output.json"
    chunks = [{"text": "a", "timestamp": [1.0, None]}, {"text": "b", "timestamp": [None, 2.0]}]
    path.write_text(json.dumps({"text": "a b", "chunks": chunks}))
    assert read_words(path) == [(1.0, 1.0)]
    path.write_text("{}")
    with pytest.raises(ValueError, match="no chunks with timestamps"):
        read_words(path)


def test_a_subject_answers_once_and_what_another_system_left_is_scored(bench, tmp_path, capsys):
    pytest.importorskip("silero_vad")
    samples = read_samples(bench)
    answers = Answers(tmp_path / "out", IgnoresUsers)
    sides = [answers(one) for one in samples]
    assert all(abs(side.duration - 5.0) < 0.1 for side in sides)
    written = soundfile.read(tmp_path / "out" / samples[0].name / "output.wav")[0]
    assert torch.from_numpy(written).abs().max() > 0.05
    again = Answers(tmp_path / "out", None)(samples[0])
    assert again == sides[0]
    words = ["evaluate-conversation", "--full-duplex-bench", str(bench), "--output", str(tmp_path / "report")]
    assert main([*words, "--subject", "recorded"]) == 0
    report = json.loads((tmp_path / "report" / "full_duplex.json").read_text())
    assert all(axis["n_ok"] == 0 and axis["n_in"] == 1 for axis in report["axes"].values())
    assert main([*words, "--subject", "ignores_users"]) == 0
    report = json.loads((tmp_path / "report" / "full_duplex.json").read_text())
    assert all(axis["n_ok"] == 1 for axis in report["axes"].values())
    assert main([*words, "--corpus", "x"]) == 2 and "expected one of" in capsys.readouterr().err


def test_the_bench_of_interruptions_has_the_same_axes():
    outcomes = [
        Outcome("h", "hesitation", answered=-200.0),
        Outcome("s", "silence", answered=600.0),
        Outcome("b", "barge_in", stopped=250.0, again=700.0, answered=500.0),
        Outcome("f", "barge_in", failure="no answer in 6 s"),
        Outcome("c", "cough", answered=500.0),
    ]
    found = axes(of_bench(outcomes))
    assert found["pause_handling"]["take_over_rate"] == {"n": 1, "mean": 1.0}
    assert found["smooth_turn_taking"]["latency_ms"] == {"n": 1, "mean": 600.0}
    interruption = found["user_interruption"]
    assert (interruption["n_in"], interruption["n_ok"]) == (2, 1)
    assert interruption["stop_ms"] == {"n": 1, "mean": 250.0} and "backchannel" not in found
