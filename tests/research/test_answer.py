"""A question is answered by one command: it trains, measures, decides and writes, each part once."""

import json
from pathlib import Path

import pytest

from csm.cli import main


@pytest.fixture(scope="module")
def words(small, tmp_path_factory) -> list[str]:
    """Returns the command that asks what the memory is for, of models of two steps and two seeds."""
    base = small.base
    fields = {
        "corpus": base.corpus,
        "model.d_model": base.model.d_model,
        "model.max_speakers": base.model.max_speakers,
        "model.local_speakers": base.model.local_speakers,
        "data.max_rows": base.data.max_rows,
        "data.rows_per_micro_batch": base.data.rows_per_micro_batch,
        "training.tracker": "none",
        "training.validate_every": 2,
    }
    given = [part for name, value in fields.items() for part in ("--set", f"{name}={value}")]
    output = str(tmp_path_factory.mktemp("answer") / "memory")
    sizes = ["--steps", "2", "--seeds", "2", "--lines", "0", "--device", "cpu"]
    codes = ["--codes", str(small.codes), "--output", output]
    return ["research", "memory", *codes, *sizes, "--recipe", "tiny", *given]


def output_of(words: list[str]) -> Path:
    return Path(words[words.index("--output") + 1])


def test_the_command_trains_measures_and_decides(words, capsys) -> None:
    assert main(words) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    output = output_of(words)
    found = json.loads((output / "results.json").read_text())
    assert found["question"] == "memory" and found["decision"] in printed.lower()
    assert [arm["arm"] for arm in found["trained"]] == ["none", "semantic", "style", "both"]
    assert all(arm["steps"] == 2 and arm["parameters"] > 1000 for arm in found["trained"])
    decided = [claim for claim in found["claims"] if claim["claim"]["metric"] != "similarity_to_evicted"]
    assert len(decided) == 5 and all(claim["seeds"] == 2 and claim["interval"] for claim in decided)
    (spoken,) = [claim for claim in found["claims"] if claim["claim"]["metric"] == "similarity_to_evicted"]
    assert spoken["decision"] == "not decided" and "was not measured" in spoken["reason"]
    page = (output / "report.html").read_text()
    assert "not decided" in page and "Holm" in page and "another conversation" in page
    assert {path.name for path in (output / "seed1").iterdir()} == {"none", "semantic", "style", "both"}


def test_what_is_there_is_neither_trained_nor_measured_again(words, capsys) -> None:
    output = output_of(words)
    before = json.loads((output / "results.json").read_text())
    files = [*output.glob("seed*/*/model.safetensors"), *output.glob("measured/*.json")]
    times = {path: path.stat().st_mtime_ns for path in files}
    assert len(times) == 10
    assert main(words) == 0
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert json.loads((output / "results.json").read_text()) == before


def test_other_trainings_and_other_questions_are_refused_in_the_same_folder(words, capsys) -> None:
    output = output_of(words)
    longer = [word if word != "2" else "3" for word in words]
    longer[longer.index("--seeds") + 1] = "2"
    assert main(longer) == 2
    assert "none" in capsys.readouterr().err
    other = ["research", "losses", *words[2:]]
    assert main(other) == 2
    assert f"{output} holds the results of 'memory'" in capsys.readouterr().err
