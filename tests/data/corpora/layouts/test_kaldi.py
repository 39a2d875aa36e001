"""Kaldi's data folders."""

from tests.data.corpora.layouts.small_trees import ledger, prepared, said, sound, text


def test_segments_of_two_channels_are_one_conversation_and_commands_are_not_run(tmp_path) -> None:
    folder = tmp_path / "in/data/train"
    sound(tmp_path / "in/wav/call.wav", channels=2)
    text(folder / "wav.scp", f"call-A wav/call.wav\ncall-B wav/call.wav\nevil-A touch {tmp_path}/evil |\n")
    text(folder / "reco2file_and_channel", "call-A call A\ncall-B call B\n")
    text(
        folder / "segments",
        "u1 call-A 0.1 0.9\nu2 call-B 1.0 1.5\nu3 evil-A 0 1\nu4 call-A 0 x\nu7 call-A 1.5 1.6\n",
    )
    text(folder / "text", "u1 well hello\nu2 hi\nu3 no\nu4 bad\nu5 lost\nu6\n")
    text(folder / "utt2spk", "u1 ann\nu2 ben\nu3 eve\nu4 ann\n")
    corpus = prepared(tmp_path)
    assert said(corpus) == [("call", "ann", "well hello", 0, 0.1, 0.9), ("call", "ben", "hi", 1, 1.0, 1.5)]
    assert [turn.id for turn in corpus.turns()] == ["u1", "u2"] and not (tmp_path / "evil").exists()
    for reason in (
        "is a command",
        "no usable line in wav.scp",
        "end is 'x'",
        "has no line in segments",
        "segments, u7",
    ):
        assert reason in ledger(corpus)


def test_without_segments_each_utterance_is_a_file(tmp_path) -> None:
    sound(tmp_path / "in/u1.wav")
    for name, content in (("wav.scp", "u1 u1.wav"), ("text", "u1 hi"), ("utt2spk", "u1 ann")):
        text(tmp_path / "in" / name, content)
    assert said(prepared(tmp_path)) == [("u1", "ann", "hi", 0, 0.0, 2.0)]
