"""Probes find what was planted into codes, where it was planted and nowhere else."""

from dataclasses import replace

import pytest
import torch

from csm.audio.files import write_audio
from csm.data.manifest import Conversation, Corpus, Turn
from csm.data.phone_labels import PhoneLabels
from csm.evaluation.core.statistics import pooled_mean
from csm.evaluation.metrics.coded_clips import CodedClip, CodeVectors, ProbeConfig, encode_clips
from csm.evaluation.metrics.phone_probe import phone_scores
from csm.evaluation.metrics.probes import HEADERS, what_the_codes_carry
from csm.evaluation.metrics.speaker_probe import speaker_scores
from csm.evaluation.metrics.text_reader import letters_of, word_scores
from csm.evaluation.metrics.twins import equal_codes, twin_turns
from csm.evaluation.metrics.verification import VerificationConfig
from csm.spelling import LETTERS
from csm.text import ByteCodec
from csm.tokenizer import ConversationalRVQ, TokenizerConfig
from csm.tokenizer.codebook import CodebookStack
from csm.tokenizer.semantic.semantic_heads import SemanticHeads
from csm.tokenizer.semantic.semantic_tokenizer import SemanticTokenizer

FAST = ProbeConfig(phone_epochs=60, reader_epochs=14)
SPEAKERS = ("A", "B", "C", "D")
WORDS = ("ab ", "cd ", "ba ", "dc ")
SECONDS_PER_FRAME = 0.08


class ConstantEncoder:
    """An embedding that is the same for everybody."""

    evaluator = "constant 1.0"

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


@pytest.fixture(scope="module")
def vectors():
    torch.manual_seed(7)
    return CodeVectors(CodebookStack(2, 16, 32), CodebookStack(2, 16, 32))


def planted_clips(count, seed):
    """Clips of six words, one a frame: the first semantic code is the word, the first acoustic the speaker.

    The second code of each part is noise.
    """
    generator = torch.Generator().manual_seed(seed)
    clips = []
    for number in range(count):
        spoken = torch.randint(len(WORDS), (6,), generator=generator)
        speaker = int(torch.randint(len(SPEAKERS), (1,), generator=generator))
        noise = torch.randint(4, (2, 6), generator=generator)
        codes = torch.stack([spoken, noise[0], torch.full((6,), speaker), noise[1]])
        text = "".join(WORDS[int(word)] for word in spoken).strip()
        clips.append(CodedClip(turn(f"clip{seed}_{number}", text, SPEAKERS[speaker]), codes))
    return clips


def labels_of(clips):
    """Phone labels whose classes are bytes: each frame's three letters share its four steps."""
    texts, ends = {}, {}
    for clip in clips:
        frames = clip.codes.shape[1]
        steps = torch.arange(frames).unsqueeze(1) * SECONDS_PER_FRAME + torch.tensor([0.02, 0.06, 0.08])
        texts[clip.turn.id] = clip.turn.text
        # The speaker id at first has no duration; the end id takes the place of the last space.
        ends[clip.turn.id] = torch.cat([torch.zeros(1), steps.flatten()])
    return PhoneLabels(ByteCodec(), texts.items(), ends)


@pytest.fixture(scope="module")
def clips():
    return planted_clips(160, 0), planted_clips(20, 1)


@pytest.mark.parametrize("layers", [1, 2])
def test_phones_are_found_where_they_are(clips, vectors, layers) -> None:
    train, held_out = clips
    labels = labels_of(train + held_out)

    def accuracy(stream):
        rows = lambda clip: vectors.rows(clip, stream)  # noqa: E731
        return pooled_mean(phone_scores(train, held_out, rows, labels, FAST, layers=layers), None)

    assert accuracy("0") > 0.95, "the last step of a clip is the end and no space"
    assert accuracy("0-3") > 0.9
    assert accuracy("2-3") < 0.55, "every fourth step is a space, and of the letters two are equally likely"


def test_words_are_read_where_they_are(clips, vectors) -> None:
    train, held_out = clips
    read = word_scores(train, held_out, lambda clip: vectors.rows(clip, "0"), FAST)
    assert pooled_mean(read, None) < 0.05
    assert all(score.weight == 6 for score in read) and len(read) == len(held_out)
    short = replace(FAST, reader_epochs=4)
    assert pooled_mean(word_scores(train, held_out, lambda c: vectors.rows(c, "2-3"), short), None) > 0.6


def test_a_reader_collapses_repeated_symbols_and_drops_blanks() -> None:
    scores = torch.full((7, 29), -9.0)
    scores[torch.arange(7), torch.tensor([1, 1, 0, 1, 28, 28, 2])] = 0.0
    assert letters_of(scores) == "aa b"


def test_speakers_are_found_where_they_are(clips, vectors) -> None:
    def accuracy(stream):
        return pooled_mean(speaker_scores(*clips, lambda clip: vectors.rows(clip, stream), FAST), None)

    assert accuracy("2-3") == 1.0
    assert accuracy("0-3") == 1.0
    assert accuracy("0-1") < 0.55, "four speakers: guessing has a quarter"


def test_the_scale_of_the_codes_does_not_matter_to_the_speaker_probe(clips, vectors) -> None:
    plain = speaker_scores(*clips, lambda clip: vectors.rows(clip, "2-3"), FAST)
    assert speaker_scores(*clips, lambda clip: vectors.rows(clip, "2-3") * 64, FAST) == plain


def test_a_clip_without_letters_is_not_tested_and_one_too_dense_not_trained_on(clips, vectors) -> None:
    train, held_out = clips[0][:40], clips[1][:4]
    dense = CodedClip(turn("dense", "ab" * 100), train[0].codes)
    mute = CodedClip(turn("mute", "..."), train[0].codes)
    few = replace(FAST, reader_epochs=1)
    rows = lambda clip: vectors.rows(clip, "0")  # noqa: E731
    scores = word_scores([*train, dense, mute], [*held_out, mute], rows, few)
    assert scores == word_scores(train, held_out, rows, few)


def test_what_cannot_be_trained_is_refused(clips, vectors) -> None:
    train, held_out = clips
    mute = CodedClip(turn("mute", "..."), train[0].codes)
    rows = lambda clip: vectors.rows(clip, "0")  # noqa: E731
    with pytest.raises(ValueError, match="has a text"):
        word_scores([mute], held_out, rows, FAST)
    with pytest.raises(ValueError, match="has a text"):
        phone_scores([mute], held_out, rows, labels_of(held_out), FAST, layers=1)
    with pytest.raises(ValueError, match="two at least"):
        speaker_scores(train[:1], held_out, rows, FAST)
    with pytest.raises(ValueError, match="phone_epochs is 0"):
        ProbeConfig(phone_epochs=0)


def test_twins_share_codes_where_both_voices_have_the_same_one() -> None:
    first = CodedClip(turn("a", "abcd", conversation="talk"), torch.tensor([[1, 2, 3, 4, 5, 6]]))
    # The second voice is twice as slow.
    second = CodedClip(
        turn("b", "abcd", "B", "talk-twin"), torch.arange(1, 7).repeat_interleave(2).unsqueeze(0)
    )
    ends = {"a": torch.arange(1.0, 7) * 0.08, "b": torch.arange(1.0, 7) * 0.16}
    (score,) = equal_codes([(first, second)], ends, 12.5, 0)
    assert score.value == 1.0 and score.weight == 4
    (control,) = equal_codes([(first, second)], ends, 12.5, 0, seed=0)
    assert control.value < 1.0


def test_twins_are_turns_of_one_text_in_conversations_of_one_name() -> None:
    def talk(name, texts, split="test"):
        turns = tuple(turn(f"{name}{i}", text, "A", name, i) for i, text in enumerate(texts))
        return Conversation(id=name, split=split, turns=turns)

    conversations = (talk("x", "ab"), talk("x-twin", "ab"), talk("y", "c"), talk("y-twin", "d"))
    corpus = Corpus(root=".", conversations=conversations)
    assert [(a.id, b.id) for a, b in twin_turns(corpus, 9)] == [("x0", "x-twin0"), ("x1", "x-twin1")]
    assert twin_turns(corpus, 1) == twin_turns(corpus, 9)[:1]


def small_config(**changes):
    return TokenizerConfig(
        **{
            "sample_rate": 11025,
            "n_codebooks": 4,
            "semantic_codebooks": 2,
            "codebook_size": 16,
            "codebook_dim": 8,
            "encoder_widths": (8, 8, 8),
            "encoder_depths": (1, 1, 1),
            "decoder_widths": (8, 8, 8),
            "decoder_depths": (1, 1, 1),
        }
        | changes
    )


def small_tokenizer():
    torch.manual_seed(0)
    return ConversationalRVQ(small_config()).eval()


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
    "probes": ProbeConfig(fewest_clips=2, phone_epochs=1, reader_epochs=1, repeats=20),
    "verification": VerificationConfig(speakers=("A", "B"), shortest=0.1, trials=20, repeats=20),
    "encoder": ConstantEncoder(),
}


def test_a_clip_has_the_same_codes_alone_and_among_longer_ones(corpus) -> None:
    turns, tokenizer = corpus.turns("train"), small_tokenizer()
    together = encode_clips(tokenizer, corpus, turns)
    assert [clip.turn for clip in together] == turns
    for clip in (together[0], together[-1]):
        assert torch.equal(clip.codes, encode_clips(tokenizer, corpus, [clip.turn])[0].codes)
    vectors = CodeVectors.of(tokenizer)
    assert list(vectors.streams) == ["0", "0-1", "2-3", "0-3"]
    assert vectors.rows(together[0], "0-3").shape[1] == 2 * tokenizer.config.codebook_dim


def test_the_tables_are_the_same_twice_and_leave_chance_alone(corpus) -> None:
    tokenizer = small_tokenizer()
    torch.manual_seed(1)
    first, state = what_the_codes_carry(tokenizer, corpus, **SIZES), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state()), "nothing is drawn from the global generator"
    torch.manual_seed(2)
    assert what_the_codes_carry(tokenizer, corpus, **SIZES) == first
    assert [table.title for table in first[:4]] == list(HEADERS)
    for table in (*first[:3], first[4]):
        assert table.rows and all(len(row) == len(table.header) for row in table.rows)
    assert first[3].rows == [] and "twin" in first[3].note
    assert [row[0].text for row in first[0].rows[:-1]] == ["0", "0-1", "2-3", "0-3"]
    assert [row[0].text for row in first[1].rows[:-1]] == ["0", "0-1"], "words are read from semantic codes"


def test_lines_of_the_train_split_are_not_tested(corpus) -> None:
    phones, words, voices, *_ = what_the_codes_carry(small_tokenizer(), corpus, **SIZES)
    assert {row[-1].text for row in phones.rows[:-1]} == {"5"}, "six test clips, one with a known line"
    assert {row[-1].text for row in words.rows[:-1]} == {"5"}
    assert {row[-1].text for row in voices.rows[:-1]} == {"10"}, "all clips of validation and test"


def test_a_semantic_tokenizer_alone_is_probed_without_acoustic_codebooks(corpus) -> None:
    torch.manual_seed(0)
    config = small_config(
        sample_rate=24_000, hops_per_frame=8, strides=(4, 2), semantic_layers=1, semantic_width=16,
        semantic_heads=2,
    )  # fmt: skip
    heads = SemanticHeads(config.codebook_dim, 16, num_phones=5, num_letters=len(LETTERS)).eval()
    tables = what_the_codes_carry(
        SemanticTokenizer(config).eval(), corpus, probes=SIZES["probes"], heads=heads
    )
    assert [table.title for table in tables] == list(HEADERS)
    assert [row[0].text for row in tables[0].rows[:-1]] == ["0", "0-1"]
    reader, letters, decoder = ([row[place].text for row in tables[1].rows[:-1]] for place in (1, 2, 3))
    assert reader[0] == "-" and reader[1] != "-", "a reader is trained on all semantic codebooks"
    assert all(float(text) > 0 for text in letters) and decoder == ["-", "-"]


def test_a_corpus_that_is_too_small_says_so_in_the_note(corpus) -> None:
    # The default sizes ask for 20 training clips of a speaker and for voices that are not in this corpus.
    options = {"probes": replace(SIZES["probes"], fewest_clips=20), "encoder": ConstantEncoder()}
    *probes, last = what_the_codes_carry(small_tokenizer(), corpus, **options)
    assert [(table.title, table.header) for table in probes] == list(HEADERS.items())
    assert probes[0].rows and probes[2].rows == [] and "fewest_clips" in probes[2].note
    assert last.rows == [] and last.note.startswith("Not measured: ")
