"""A corpus through a tokenizer, in several cuts."""

import pytest
import torch

from csm.audio.files import write_audio
from csm.audio.prosody import frame_prosody
from csm.data.code_shards import version_id, version_speed
from csm.data.manifest import Conversation, Corpus, Turn
from csm.recipes.encoding import at_speed, encoded_turns
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
def test_versions_of_training_turns_are_as_long_and_begin_earlier(corpus):
    torch.manual_seed(0)
    tokenizer = ConversationalRVQ(recipe("tiny").tokenizer).eval()
    tokenizer.quantizer.semantic.codebooks.normal_()
    plain = {turn.id: turn for turn in encoded_turns(corpus, tokenizer)}
    found = {turn.id: turn for turn in encoded_turns(corpus, tokenizer, versions=3)}
    assert set(plain) == {f"train{i}" for i in range(3)} | {"test0", "test1"}
    assert set(found) == set(plain) | {version_id(f"train{i}", v) for i in range(3) for v in (1, 2)}
    for name, turn in plain.items():
        assert torch.equal(found[name].codes, turn.codes)
    for index in range(3):
        first, *others = (found[version_id(f"train{index}", version)] for version in range(3))
        assert all(other.codes.shape == first.codes.shape for other in others)
        assert all(torch.equal(other.prosody, first.prosody) for other in others)
        assert not any(torch.equal(other.codes, first.codes) for other in others)


@torch.no_grad()
def test_played_faster_a_turn_is_shorter_and_higher(tmp_path):
    hum = sum((0.1 * torch.sin(torch.arange(22_050) * n * 0.1)).unsqueeze(0) for n in (1, 2, 3))
    write_audio(tmp_path / "hum.wav", hum, 11_025)
    kept = {"conversation": "c", "index": 0, "speaker": "A", "text": "hum", "end": 2.0}
    turn = Turn(id="hum", audio="hum.wav", **kept)
    corpus = Corpus(root=tmp_path, conversations=(Conversation(id="c", split="train", turns=(turn,)),))
    torch.manual_seed(0)
    tokenizer = ConversationalRVQ(recipe("tiny").tokenizer).eval()
    tokenizer.quantizer.semantic.codebooks.normal_()
    speeds = (1.0, 0.8, 1.25)
    found = {turn.id: turn for turn in encoded_turns(corpus, tokenizer, versions=6, speeds=speeds)}
    rate = tokenizer.config.frame_rate
    for version in range(6):
        turn, speed = found[version_id("hum", version)], speeds[version % 3]
        assert version_speed(version, speeds) == speed
        assert turn.codes.shape[1] == len(turn.prosody) == -(-2 * rate // speed)
        pitch, voiced = turn.prosody[2:-2, 0], turn.prosody[2:-2, 1]
        assert bool(voiced.all())
        expected = torch.tensor(0.1 * 11_025 / 6.283185 * speed).log()
        torch.testing.assert_close(pitch, expected.expand(len(pitch)), atol=0.02, rtol=0)
        # What is written beside the codes is what would be measured on the faster sound.
        measured = frame_prosody(at_speed(hum, speed), 11_025, frame_rate=rate)
        torch.testing.assert_close(turn.prosody[2:-2], measured[2 : len(turn.prosody) - 2], atol=0.05, rtol=0)
