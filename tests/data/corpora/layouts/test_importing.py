"""Copies of a source's audio: each has a path of its own, found without a look at the others."""

from types import SimpleNamespace

from csm.data.corpora.layouts.importing import Importer
from csm.data.corpora.layouts.tree import Tree
from tests.data.corpora.layouts.small_trees import sound


class Unread(dict):
    """A dictionary that no pass is made over."""

    def values(self):
        raise AssertionError("all copies are gone through")


def test_a_copy_whose_name_is_taken_keeps_its_ending_and_no_copy_is_gone_through(tmp_path) -> None:
    files = [sound(tmp_path / f"in/{name}") for name in ("a.wav", "a.flac", "b.wav")]
    importer = Importer(
        SimpleNamespace(copy=lambda *given: None), Tree(tmp_path / "in", tmp_path / "scratch")
    )
    importer.copies = Unread()
    targets = [importer._audio(path)[0] for path in files]
    assert targets == ["audio/a.flac", "audio/a.flac.flac", "audio/b.flac"]
