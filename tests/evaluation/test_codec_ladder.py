"""One run judges the recording, every number of codebooks and the anchors, and says it twice alike."""

import json

import pytest

from csm.evaluation import codec_judges, codec_ladder
from csm.evaluation.codec_ladder import ExtraTable, LadderOptions, judge_tokenizer, refuse_other_report
from csm.evaluation.judge import JudgeUnavailable

SMALL = LadderOptions(codebooks=(2, 4), clips=4, repeats=20)


def no_opinion(panel):
    raise JudgeUnavailable("distillMOS needs distillmos: pip install 'csm-speech[eval]'")


@pytest.fixture
def cheap(monkeypatch):
    """Only the judge that costs nothing, and one that is not installed."""
    judges = {"log-mel distance": codec_judges.JUDGES["log-mel distance"], "distillMOS": no_opinion}
    monkeypatch.setattr(codec_judges, "JUDGES", judges)


def test_every_version_is_judged_and_two_runs_agree(cheap, small_corpus, tiny_tokenizer):
    report, versions = judge_tokenizer(tiny_tokenizer, small_corpus, SMALL)
    names = ["original", "codebooks_2", "codebooks_4", "opus_6k", "opus_12k", "codec2_3200", "codec2_1300"]
    assert report["conditions"] == names and [version.name for version in versions] == names
    assert report["clips"]["count"] == 4 and report["clips"]["conversations"] == 2
    assert all(entry["n_ok"] + entry["n_failed"] == 4 for entry in report["metrics"])
    assert {entry["condition"] for entry in report["metrics"]} == {v.name for v in versions if not v.missing}
    assert report["missing"][-1]["section"] == "distillMOS"
    assert len(report["details"]["codebooks"]["usage"]) == 4
    again, _ = judge_tokenizer(tiny_tokenizer, small_corpus, SMALL)
    assert json.dumps(again, sort_keys=True) == json.dumps(report, sort_keys=True)


def test_anchors_that_are_not_installed_are_listed_and_never_scored(
    cheap, small_corpus, tiny_tokenizer, monkeypatch
):
    monkeypatch.setattr(codec_ladder, "ANCHORS", codec_ladder.ANCHORS[:1])
    monkeypatch.setattr("shutil.which", lambda command: None)
    report, _ = judge_tokenizer(tiny_tokenizer, small_corpus, SMALL)
    assert report["versions"][-1]["missing"] == "not installed: apt install opus-tools"
    assert report["missing"][0]["reason"] == "Opus 6k not installed: apt install opus-tools"
    assert not [entry for entry in report["metrics"] if entry["condition"] == "opus_6k"]


def test_more_codebooks_than_there_are_and_torn_tables_are_refused(small_corpus, tiny_tokenizer):
    with pytest.raises(ValueError, match="codebooks 32: the tokenizer has 4"):
        judge_tokenizer(tiny_tokenizer, small_corpus, LadderOptions())
    torn = ExtraTable("Probes", ("what", "accuracy"), [("phones",)], "")
    with pytest.raises(ValueError, match="'Probes': a row has 1 cells, expected 2"):
        judge_tokenizer(tiny_tokenizer, small_corpus, SMALL, extra=[torn])


@pytest.mark.parametrize("bad", [{"codebooks": ()}, {"codebooks": (4, 4)}, {"clips": 0}, {"codebooks": (0,)}])
def test_options_that_cannot_be_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        LadderOptions(**bad)


def test_the_report_of_a_run_is_not_overwritten(tmp_path):
    refuse_other_report(tmp_path)
    (tmp_path / "report.json").write_text('{"kind": "tokenizer"}')
    refuse_other_report(tmp_path)
    (tmp_path / "report.json").write_text('{"schema_version": 1}')
    with pytest.raises(ValueError, match="report of a run; name another --output"):
        refuse_other_report(tmp_path)
