"""The page of a tokenizer: complete, self-contained, the same bytes again."""

import re

import pytest

from csm.evaluation.core.runner import RunnerOptions
from csm.evaluation.page.tokenizer_page import write_tokenizer_page
from csm.evaluation.subjects import tokenizer as tokenizers
from csm.evaluation.subjects.tokenizer import TokenizerOptions, measure_tokenizer

OPTIONS = TokenizerOptions(codebooks=(2, 4), clips=4, players=3, runner=RunnerOptions(repeats=20))


@pytest.fixture
def evaluated(small_corpus, tiny_tokenizer, monkeypatch):
    rows = tokenizers.tokenizer_metric_rows
    kept = "log-mel distance"
    monkeypatch.setattr(tokenizers, "tokenizer_metric_rows", lambda options: {kept: rows(options)[kept]})
    monkeypatch.setattr("shutil.which", lambda command: None)
    (small_corpus.root / small_corpus.conversations[0].turns[0].audio).unlink()
    return measure_tokenizer(tiny_tokenizer, small_corpus, OPTIONS)


def test_the_page_carries_everything_and_fetches_nothing(evaluated, tmp_path):
    path = write_tokenizer_page(tmp_path, evaluated)
    page = path.read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert "http://" not in page and "https://" not in page
    lost = sum(clip.waveform is None for clip in evaluated.conditions[0].clips[:3])
    assert page.count("<audio ") == (3 - lost) * 3
    assert page.count("not installed: apt install opus-tools") >= 2
    assert "from the codes alone, without speaker or emotion embedding" in page
    first = path.read_bytes()
    write_tokenizer_page(tmp_path, evaluated)
    assert path.read_bytes() == first


def test_letters_read_back_stand_below_their_clip(evaluated, tmp_path):
    clip = evaluated.conditions[0].clips[1].id
    evaluated.report.details["read_back"] = {clip: {"1": "ha<b>", "2": ""}}
    page = write_tokenizer_page(tmp_path, evaluated).read_text(encoding="utf-8")
    assert page.count("letter by letter") == 2 and "ha&lt;b&gt;" in page and "(nothing)" in page
    start = page.index(f'id="{clip}"')
    assert start < page.index("read from the codes of codebook 0,") < page.index("codebooks 0-1", start)
