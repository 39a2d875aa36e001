"""Probes find what was planted into codes, where it was planted and nowhere else."""

from dataclasses import replace

import pytest
import torch

from csm.audio.files import write_audio
from csm.data.manifest import Conversation, Corpus, Turn
from csm.evaluation.core.statistics import pooled_mean
from csm.evaluation.metrics.coded_clips import (
    STREAMS,
    CodedClip,
    ProbeConfig,
    code_vectors,
    encode_clips,
)
from csm.evaluation.metrics.letter_probe import character_scores
from csm.evaluation.metrics.probes import HEADER, what_the_codes_carry
from csm.evaluation.metrics.speaker_probe import speaker_scores
from csm.evaluation.metrics.verification import VerificationConfig
from csm.tokenizer import ConversationalRVQ, TokenizerConfig
from csm.tokenizer.quantizer import SplitQuantizer

FAST = ProbeConfig(steps=150, batch=32, learning_rate=0.02)
SPEAKERS = ("A", "B", "C", "D")


class ConstantEncoder:
    """An embedding that is the same for everybody."""

    evaluator = "deaf 1.0"

    def embed(self, waveform):
        return waveform[:2] * 0 + 1


def turn(name, text, speaker="A", conversation=None, index=0, seconds=1.0):
    return Turn(
        id=name,
        conversation=conversation or name,
        index=index,
        speaker=speaker,
        text=text,
        audio=f"{name}.wav",
        end=seconds,
    )


def planted_clips(count, seed, *, words):
    """Clips whose first semantic code is the word of the frame, and whose first acoustic one the speaker.

    The second code of each part is noise. No word comes twice in a row: CTC must then learn to part them.
    """
    torch.manual_seed(7)
    quantizer = SplitQuantizer(8, 4, 2, 32, 32)
    generator = torch.Generator().manual_seed(seed)
    clips = []
    for number in range(count):
        spoken = torch.randint(1, len(words), (12,), generator=generator).cumsum(0) % len(words)
        speaker = int(torch.randint(len(SPEAKERS), (1,), generator=generator))
        noise = torch.randint(4, (2, 12), generator=generator)
        codes = torch.stack([spoken, noise[0], torch.full((12,), speaker), noise[1]])
        text = "".join(words[int(word)] for word in spoken)
        name = f"clip{seed}_{number}"
        clips.append(CodedClip(turn(name, text, SPEAKERS[speaker]), code_vectors(quantizer, codes)))
    return clips


def error(train, held_out, stream, config=FAST):
    return pooled_mean(character_scores(train, held_out, stream, config), None)


def accuracy(train, held_out, stream):
    return pooled_mean(speaker_scores(train, held_out, stream, FAST), None)


@pytest.fixture(scope="module")
def clips():
    return planted_clips(400, 0, words="abcdefgh"), planted_clips(30, 1, words="abcdefgh")


def test_letters_are_found_where_they_are(clips) -> None:
    assert error(*clips, "semantic") < 0.05
    assert error(*clips, "all") < 0.05
    assert error(*clips, "acoustic") > 0.6


def test_speakers_are_found_where_they_are(clips) -> None:
    assert accuracy(*clips, "acoustic") == 1.0
    assert accuracy(*clips, "all") == 1.0
    assert accuracy(*clips, "semantic") < 0.55, "four speakers: guessing has a quarter"


def test_a_frame_can_hold_several_letters() -> None:
    words = ("abc", "de ", "fgf", "hi")
    train, held_out = planted_clips(400, 0, words=words), planted_clips(30, 1, words=words)
    assert error(train, held_out, "semantic") < 0.05


def test_the_window_lets_the_probe_put_letters_in_order_that_stand_in_neighbouring_frames(clips) -> None:
    # Every two frames change places, and a further dimension tells the first of two from the second.
    place = torch.tensor([0.2, 0.0]).repeat(6).unsqueeze(1)
    swapped = [
        [
            CodedClip(
                clip.turn,
                {
                    "semantic": torch.cat(
                        [clip.vectors["semantic"].view(6, 2, -1).flip(1).flatten(0, 1), place], 1
                    )
                },
            )
            for clip in part
        ]
        for part in clips
    ]
    longer = replace(FAST, steps=600)
    assert error(*swapped, "semantic", longer) < 0.1
    assert error(*swapped, "semantic", replace(longer, window=1)) > 0.5


def test_the_scale_of_the_codes_does_not_matter(clips) -> None:
    larger = [
        [CodedClip(clip.turn, {name: value * 64 for name, value in clip.vectors.items()}) for clip in part]
        for part in clips
    ]
    assert character_scores(*larger, "semantic", FAST) == character_scores(*clips, "semantic", FAST)
    assert speaker_scores(*larger, "acoustic", FAST) == speaker_scores(*clips, "acoustic", FAST)


def test_a_clip_without_letters_is_not_tested_and_one_too_dense_not_trained_on(clips) -> None:
    train, held_out = clips
    dense = CodedClip(turn("dense", "ab" * 100), train[0].vectors)
    mute = CodedClip(turn("mute", "..."), train[0].vectors)
    scores = character_scores([*train, dense, mute], [*held_out, mute], "semantic", FAST)
    assert scores == character_scores(train, held_out, "semantic", FAST)
    assert all(0 <= score.value and score.weight == 12 for score in scores)


def test_what_cannot_be_trained_is_refused(clips) -> None:
    train, held_out = clips
    with pytest.raises(ValueError, match="has a text"):
        character_scores([CodedClip(turn("mute", "..."), train[0].vectors)], held_out, "semantic", FAST)
    with pytest.raises(ValueError, match="two at least"):
        speaker_scores(train[:1], held_out, "semantic", FAST)
    with pytest.raises(ValueError, match="odd number"):
        ProbeConfig(window=2)
    with pytest.raises(ValueError, match="steps=0"):
        ProbeConfig(steps=0)


def small_tokenizer():
    torch.manual_seed(0)
    return ConversationalRVQ(
        TokenizerConfig(
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
    ).eval()


@pytest.fixture
def corpus(tmp_path):
    """Two speakers in three splits; the first test clip speaks a line of the train split."""
    generator = torch.Generator().manual_seed(0)
    conversations = []
    for split, count in (("train", 12), ("validation", 4), ("test", 6)):
        for number in range(2):
            turns = []
            for index in range(count // 2):
                name = f"{split}{number}_{index}"
                known = split == "train" or (number, index) == (0, 0)
                text = "a known line" if known else f"new words {'xyz'[index]}"
                seconds = 0.5 + 0.1 * index
                audio = torch.randn(1, int(11025 * seconds), generator=generator) * 0.1
                write_audio(tmp_path / f"{name}.wav", audio, 11025)
                turns.append(turn(name, text, "AB"[index % 2], f"{split}{number}", index, seconds))
            conversations.append(Conversation(id=f"{split}{number}", split=split, turns=tuple(turns)))
    return Corpus(root=tmp_path, conversations=tuple(conversations))


SIZES = {
    "probes": ProbeConfig(fewest_clips=2, steps=5, repeats=20),
    "verification": VerificationConfig(speakers=("A", "B"), shortest=0.1, trials=20, repeats=20),
    "encoder": ConstantEncoder(),
}


def test_a_clip_has_the_same_vectors_alone_and_among_longer_ones(corpus) -> None:
    turns, tokenizer = corpus.turns("train"), small_tokenizer()
    together = encode_clips(tokenizer, corpus, turns)
    assert [clip.turn for clip in together] == turns
    for clip in (together[0], together[-1]):
        alone = encode_clips(tokenizer, corpus, [clip.turn])[0]
        for stream in STREAMS:
            torch.testing.assert_close(clip.vectors[stream], alone.vectors[stream])
    assert together[0].vectors["all"].shape[1] == 2 * tokenizer.config.codebook_dim


def test_the_tables_are_the_same_twice_and_leave_chance_alone(corpus) -> None:
    tokenizer = small_tokenizer()
    torch.manual_seed(1)
    first, state = what_the_codes_carry(tokenizer, corpus, **SIZES), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state()), "nothing is drawn from the global generator"
    torch.manual_seed(2)
    assert what_the_codes_carry(tokenizer, corpus, **SIZES) == first
    for table in first:
        assert table.rows and all(len(row) == len(table.header) for row in table.rows)
    assert [row[0].text for row in first[0].rows] == [*STREAMS, "guessing"]
    assert "trained by ourselves" in first[0].note


def test_lines_of_the_train_split_are_not_tested(corpus) -> None:
    table = what_the_codes_carry(small_tokenizer(), corpus, **SIZES)[0]
    assert {row[2].text for row in table.rows[:3]} == {"5"}, "six test clips, one with a known line"
    assert {row[4].text for row in table.rows[:3]} == {"10"}, "all clips of validation and test"


def test_a_corpus_that_is_too_small_says_so_in_the_note(corpus) -> None:
    # The default sizes ask for 20 training clips of a speaker and for voices that are not in this corpus.
    first, second = what_the_codes_carry(small_tokenizer(), corpus, encoder=ConstantEncoder())
    assert first.rows == [] and first.header == HEADER and "fewest_clips" in first.note
    assert second.rows == [] and second.note.startswith("Not measured: ")
