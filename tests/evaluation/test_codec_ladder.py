"""The table of codebooks counts every clip and leaves the recording as it is."""

import pytest
import torch

from csm.data.audio import write_audio
from csm.data.manifest import Conversation, Corpus, Turn
from csm.evaluation.codec_ladder import codec_ladder, held_out_clips, ladder_table
from csm.tokenizer import ConversationalRVQ, TokenizerConfig


class Parrot:
    """A judge that hears the same words in everything."""

    def transcribe(self, waveform, sample_rate):
        return "one two"


@pytest.fixture
def corpus(tmp_path):
    generator = torch.Generator().manual_seed(0)
    turns = []
    for index, seconds in enumerate((2.0, 0.5, 2.0)):
        audio = torch.randn(1, int(11025 * seconds), generator=generator) * 0.1
        write_audio(tmp_path / f"{index}.wav", audio, 11025)
        turns.append(
            Turn(
                id=f"t{index}",
                conversation="c",
                index=index,
                speaker="A",
                text="one two three four",
                audio=f"{index}.wav",
                end=seconds,
            )
        )
    return Corpus(root=tmp_path, conversations=(Conversation(id="c", split="test", turns=tuple(turns)),))


def test_short_clips_are_left_out_and_the_recording_comes_first(corpus) -> None:
    turns = held_out_clips(corpus, 10)
    assert [turn.id for turn in turns] == ["t0", "t2"]
    config = TokenizerConfig(
        sample_rate=11025,
        n_codebooks=4,
        semantic_codebooks=2,
        codebook_size=16,
        codebook_dim=8,
        encoder_widths=(8, 8, 8),
        encoder_depths=(1, 1, 1),
        decoder_widths=(8, 8, 8),
        decoder_depths=(1, 1, 1),
    )
    rungs = codec_ladder(ConversationalRVQ(config).eval(), corpus, turns, [2, 4], Parrot())
    assert [rung.codebooks for rung in rungs] == [0, 2, 4]
    assert rungs[2].kbits == pytest.approx(4 * 4 * 12.5 / 1000)
    assert all(rung.values["wer"] == pytest.approx(0.5) for rung in rungs)
    assert rungs[0].values["log_mel_l1"] == pytest.approx(0.0)
    assert len(ladder_table(rungs).splitlines()) == 4


def test_a_corpus_without_long_test_turns_is_refused(corpus) -> None:
    with pytest.raises(ValueError, match="no test turn"):
        held_out_clips(corpus, 3, shortest=30.0)
