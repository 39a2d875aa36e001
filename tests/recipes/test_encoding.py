"""A corpus through a tokenizer, in several cuts."""

import pytest
import torch

from csm.audio.files import write_audio
from csm.data.manifest import Conversation, Corpus, Turn
from csm.recipes.encoding import codebook_report, encoded_turns
from csm.recipes.named import recipe
from csm.tokenizer.conversational_rvq import ConversationalRVQ


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    """Noise of 0.37 to 1.3 s, three turns for training and two that are not."""
    conversations = []
    for split, lengths in (("train", (0.37, 0.8, 1.3)), ("test", (0.5, 0.9))):
        turns = []
        for index, seconds in enumerate(lengths):
            generator = torch.Generator().manual_seed(index)
            noise = torch.randn(1, int(11_025 * seconds), generator=generator) * 0.1
            write_audio(tmp_path / f"{split}{index}.wav", noise, 11_025)
            name = f"{split}{index}"
            kept = {"conversation": split, "index": index, "speaker": "A", "text": "yes", "end": seconds}
            turns.append(Turn(id=name, audio=f"{name}.wav", **kept))
        conversations.append(Conversation(id=split, split=split, turns=tuple(turns)))
    return Corpus(root=tmp_path, conversations=tuple(conversations))


@torch.no_grad()
def test_time_shifts_of_training_turns_are_as_long_and_begin_earlier(corpus):
    torch.manual_seed(0)
    tokenizer = ConversationalRVQ(recipe("tiny").tokenizer).eval()
    tokenizer.quantizer.semantic.codebooks.normal_()
    plain = {turn.id: turn for turn in encoded_turns(corpus, corpus.turns(), tokenizer)}
    found = {turn.id: turn for turn in encoded_turns(corpus, corpus.turns("train"), tokenizer, 3)}
    assert set(plain) == {f"train{i}" for i in range(3)} | {"test0", "test1"}
    assert set(found) == {f"train{i}" for i in range(3)}
    for name, turn in found.items():
        assert torch.equal(plain[name].codes, turn.codes) and torch.equal(plain[name].prosody, turn.prosody)
        assert len(turn.shifted) == 2 and not plain[name].shifted
        assert all(other.shape == turn.codes.shape for other in turn.shifted)
        assert not any(torch.equal(other, turn.codes) for other in turn.shifted)


def test_the_codebook_report_counts_usage_perplexity_and_dead_codes():
    tokenizer = ConversationalRVQ(recipe("tiny").tokenizer)
    codes = torch.zeros(4, 64, dtype=torch.int64)
    codes[1] = torch.arange(64) % 32
    report = codebook_report(tokenizer, [codes[:, :10], codes[:, 10:]])
    assert report["frames"] == 64 and report["codebook_size"] == 32
    assert report["usage"][:2] == [round(1 / 32, 4), 1.0] and report["dead"][:2] == [31, 0]
    assert report["perplexity"][:2] == [1.0, 32.0]
