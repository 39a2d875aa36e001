"""Talking: the stream is the whole, text may come late, and a refusal says what was expected."""

import dataclasses
import itertools
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from csm.audio.files import read_audio
from csm.generation.prompt_turn import PromptTurn
from csm.generation.session import Session
from csm.generation.shared_speech import SharedSteps
from csm.generation.talker import Talker
from csm.system.digests import folder_digests

TEXT = "Hello there. Who are you?"


def recording(seconds: float = 0.5, rate: int = 8000, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, round(seconds * rate), generator=torch.Generator().manual_seed(seed)) * 0.1


@pytest.mark.parametrize("speaker", [None, "FAYE"])
def test_a_stream_has_the_codes_and_the_sound_of_the_whole(talker, speaker):
    whole = talker.generate(TEXT, speaker)
    stream = talker.generate(TEXT, speaker, stream=True)
    chunks = list(stream)
    assert torch.equal(stream.codes, whole.codes) and len(chunks) > 2
    torch.testing.assert_close(torch.cat(chunks, dim=1), whole.waveform, atol=1e-5, rtol=0)
    voice = talker.voice(speaker)
    with torch.no_grad():
        decoded = talker.tokenizer.decode(whole.codes[None], speaker=voice.speaker, emotion=voice.emotion)
    torch.testing.assert_close(whole.waveform, decoded[0], atol=1e-5, rtol=0)
    assert whole.waveform.shape[1] == whole.codes.shape[1] * 640 and whole.sample_rate == 8000


def test_generated_codes_are_heard_with_the_samplings_contrast(talker):
    sharp = dataclasses.replace(talker, sampling=dataclasses.replace(talker.sampling, contrast=1.6))
    plain, heard = talker.generate(TEXT), sharp.generate(TEXT)
    assert torch.equal(plain.codes, heard.codes)
    voice = talker.voice()
    with torch.no_grad():
        decoded = talker.tokenizer.decode(
            heard.codes[None], speaker=voice.speaker, emotion=voice.emotion, contrast=1.6
        )
    torch.testing.assert_close(heard.waveform, decoded[0], atol=1e-5, rtol=0)
    assert float((heard.waveform - plain.waveform).abs().max()) > 1e-3
    (together,) = sharp.generate_many([TEXT], [None], [sharp.sampling.seed])
    torch.testing.assert_close(together.waveform, heard.waveform, atol=1e-5, rtol=0)


def test_sound_may_be_decoded_from_the_first_codebooks_alone(talker):
    few = dataclasses.replace(talker, sampling=dataclasses.replace(talker.sampling, decoded_codebooks=2))
    plain, heard = talker.generate(TEXT), few.generate(TEXT)
    assert torch.equal(plain.codes, heard.codes) and len(heard.codes) > 2
    voice = talker.voice()
    with torch.no_grad():
        decoded = talker.tokenizer.decode(heard.codes[None, :2], speaker=voice.speaker, emotion=voice.emotion)
    torch.testing.assert_close(heard.waveform, decoded[0], atol=1e-5, rtol=0)
    assert float((heard.waveform - plain.waveform).abs().max()) > 1e-3
    (together,) = few.generate_many([TEXT], [None], [few.sampling.seed])
    torch.testing.assert_close(together.waveform, heard.waveform, atol=1e-5, rtol=0)
    # Beside speech of all codebooks, in common steps.
    shared = SharedSteps(few.tokenizer)
    speakers = [dataclasses.replace(one, shared=shared) for one in (few, talker)]
    streams = [one.generate(TEXT, stream=True) for one in speakers]
    chunks: list[list[torch.Tensor]] = [[], []]
    for pair in itertools.zip_longest(*streams):
        for made, chunk in zip(chunks, pair, strict=True):
            made += [] if chunk is None else [chunk]
    for made, alone in zip(chunks, (heard, plain), strict=True):
        torch.testing.assert_close(torch.cat(made, dim=1), alone.waveform, atol=1e-5, rtol=0)


def test_a_seed_repeats_the_speech_and_another_does_not(talker):
    one, two, other = (talker.generate(TEXT, seed=seed).codes for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one[:, :5], other[:, :5])


def test_text_may_arrive_while_it_is_spoken(talker):
    asked = []

    def pieces():
        for piece in ("Hello the", "re. ", "Who are", " you?"):
            asked.append(piece)
            yield piece

    stream = talker.generate(pieces(), stream=True)
    first = next(stream)
    assert first.shape[1] and len(asked) == 2 and stream.sentence == "Hello there."
    rest = list(stream)
    assert torch.equal(stream.codes, talker.generate(TEXT).codes)
    torch.testing.assert_close(
        torch.cat([first, *rest], 1), talker.generate(TEXT).waveform, atol=1e-5, rtol=0
    )


def test_stopped_between_frames_it_keeps_what_was_said_and_goes_on(talker):
    session = talker.session()
    stream = talker.generate("Hello there.", session=session, stream=True)
    for _ in range(3):
        next(stream)
    stream.close()
    (turn,) = session.turns
    assert torch.equal(turn.turn.codes, stream.codes) and 3 <= stream.codes.shape[1] <= 5
    assert list(stream) == []
    assert talker.generate("More.", session=session).codes.shape[1] > 0 and len(session.turns) == 2


def test_what_came_before_changes_what_is_said(talker):
    earlier = PromptTurn("Good morning.", recording(), 8000, speaker="FAYE")
    alone, answered = talker.generate("Hello."), talker.generate("Hello.", context=[earlier])
    assert not torch.equal(alone.codes[:, :4], answered.codes[:, :4])
    session = talker.session()
    talker.generate("Hello.", context=[earlier], session=session)
    assert [context.turn.speaker for context in session.turns] == [1, 0]


def test_a_style_changes_the_sound_and_neither_codes_nor_voice(talker):
    plain, sound = talker.generate(TEXT), recording(seed=5)
    styled = talker.with_style(sound, 8000)
    heard = styled.generate(TEXT)
    assert torch.equal(heard.codes, plain.codes) and torch.equal(heard.voice.speaker, plain.voice.speaker)
    with torch.no_grad():
        _, info = talker.tokenizer.encode(sound[None])
        voice, codes = plain.voice, plain.codes[None]
        decoded = talker.tokenizer.decode(codes, speaker=voice.speaker, emotion=info.emotion)
    torch.testing.assert_close(heard.waveform, decoded[0], atol=1e-5, rtol=0)
    assert float((heard.waveform - plain.waveform).abs().max()) > 1e-4
    prompt = PromptTurn("What was said.", recording(seed=6), 8000)
    assert torch.equal(styled.generate(TEXT, prompt=prompt).voice.emotion, info.emotion)
    (together,) = styled.generate_many([TEXT], [None], [styled.sampling.seed])
    torch.testing.assert_close(together.waveform, heard.waveform, atol=1e-5, rtol=0)
    for wrong, message in ((sound[0], "shape"), (sound * 1e5, "full scale"), (sound.int(), "dtype")):
        with pytest.raises(ValueError, match=f"waveform of a recording of a style .*{message}"):
            talker.with_style(wrong, 8000)


def test_a_prompt_of_any_rate_lends_its_voice(talker):
    stream = talker.generate(
        "Hello.", prompt=PromptTurn("La la.", recording(rate=16_000), 16_000), stream=True
    )
    waveform = torch.cat(list(stream), dim=1)
    assert stream.voice.name == "prompt" and stream.voice.speaker.shape == (1, 8)
    assert [context.turn.text for context in stream.session.turns] == ["La la.", "Hello."]
    with torch.no_grad():
        decoded = talker.tokenizer.decode(
            stream.codes[None], speaker=stream.voice.speaker, emotion=stream.voice.emotion
        )
    torch.testing.assert_close(waveform, decoded[0], atol=1e-5, rtol=0)


def test_a_context_longer_than_the_window_goes_to_the_memory(talker):
    turns = [PromptTurn("Good morning.", recording(1.0, seed=i), 8000) for i in range(12)]
    session = talker.session()
    talker.generate("Hello.", context=turns, session=session)
    assert len(session.turns) < 13 and int(session.memory.turns) == 13 - len(session.turns)


@pytest.mark.parametrize(
    ("said", "options", "message"),
    [
        ("  ", {}, "text is empty"),
        (iter([" ", "\n"]), {}, "text is empty"),
        ("Hi.", {"speaker": "FAY"}, "speaker is 'FAY': expected one of JOE, FAYE; did you mean FAYE"),
        ("Hi.", {"prompt": PromptTurn(" ", recording(), 8000)}, "has no text|is empty"),
        ("Hi.", {"context": [PromptTurn("Hi.", recording(), 8000, "BOB")]}, "speaker is 'BOB'"),
        ("Hi.", {"prompt": PromptTurn("Hi.", recording()[0], 8000)}, r"expected \[1, S\]"),
        ("Hi.", {"prompt": PromptTurn("Hi.", recording(), 8000), "speaker": "JOE"}, "expected only one"),
        ("x" * 10_000, {}, "a word of 10000 characters"),
    ],
)
def test_bad_input_is_refused_and_the_talker_speaks_on(talker, said, options, message):
    with pytest.raises(ValueError, match=message):
        talker.generate(said, **options)
    assert talker.generate("Hi.").codes.shape[1] > 0


@pytest.mark.parametrize("given", [{"seed": 3}, {"speed": 1.5}])
def test_a_session_has_its_own_seed_and_speed(talker, given):
    name = next(iter(given))
    with pytest.raises(ValueError, match=f"{name} is .*which has its own"):
        talker.generate("Hello.", session=talker.session(), **given)


def test_the_speed_of_a_call_is_that_of_its_session(talker):
    assert talker.session(speed=1.5).sampling.speed == 1.5 and talker.session().sampling.speed == 1.0
    with pytest.raises(ValueError, match="speed is 9.0: expected 0.5"):
        talker.generate("Hello.", speed=9.0)


def test_of_candidates_the_best_read_one_is_heard_sentence_by_sentence(talker):
    class Shortest:
        """Reads the shortest rendition best."""

        def __init__(self):
            self.read = []

        def __call__(self, turn, voice):
            self.read.append((turn.text, voice.name, turn.codes.shape[1]))
            return float(turn.codes.shape[1])

    reader = Shortest()
    stream = talker.generate(TEXT, "FAYE", candidates=3, reader=reader, stream=True)
    waveform = torch.cat(list(stream), dim=1)
    texts = ["Hello there.", "Who are you?"]
    assert [text for text, _, _ in reader.read] == [text for text in texts for _ in range(3)]
    assert {name for _, name, _ in reader.read} == {"FAYE"}
    kept = [turn.turn.codes.shape[1] for turn in stream.session.turns]
    assert kept == [min(size for text, _, size in reader.read if text == one) for one in texts]
    assert stream.codes.shape[1] == sum(kept) + len(talker.pause)
    whole = talker.generate(TEXT, "FAYE", candidates=3, reader=Shortest())
    assert torch.equal(whole.codes, stream.codes)
    torch.testing.assert_close(waveform, whole.waveform, atol=1e-5, rtol=0)
    # One candidate needs no reader and is what is spoken without the argument.
    assert torch.equal(talker.generate(TEXT, candidates=1).codes, talker.generate(TEXT).codes)


@pytest.mark.parametrize("count", [0, 2])
def test_candidates_that_cannot_be_are_refused(talker, count):
    steps = SharedSteps(talker.tokenizer, expected=1)
    try:
        busy = dataclasses.replace(talker, shared=steps)
        with pytest.raises(ValueError, match=f"candidates is {count}: expected 1"):
            busy.generate(TEXT, candidates=count)
        with pytest.raises(ValueError, match="reader is 'ear': expected one of recogniser, model"):
            talker.generate(TEXT, reader="ear")
    finally:
        steps.close()


def test_ten_thousand_characters_are_spoken_sentence_by_sentence(talker):
    stream = talker.generate("Hello there, you. " * 556, stream=True)
    assert next(stream).shape[1] > 0 and stream.sentence == "Hello there, you."
    stream.close()


@pytest.mark.parametrize("half", [False, True])
def test_a_saved_talker_says_the_same(talker, tmp_path, half):
    talker.save_pretrained(tmp_path / "voice", half=half)
    loaded = Talker.from_pretrained(tmp_path / "voice")
    assert list(loaded.voices) == ["JOE", "FAYE"] and loaded.sampling == talker.sampling
    if not half:
        again = loaded.generate(TEXT)
        assert torch.equal(again.codes, talker.generate(TEXT).codes)
    for name, value in talker.model.state_dict().items():
        # Of a code's largest entry, in 8 bits.
        bound = 0.5 / 127 * float(value.abs().max()) + 1e-3 if half else 0.0
        torch.testing.assert_close(loaded.model.state_dict()[name], value, atol=bound, rtol=1e-3)


def test_a_relative_path_is_a_place_like_any_other(talker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    talker.save_pretrained("voices/mine")
    assert set(folder_digests(tmp_path / "voices/mine")) == {
        "model.safetensors",
        "voices.json",
        "config.json",
    }
    assert list(Talker.from_pretrained("voices/mine").voices) == ["JOE", "FAYE"]


def test_two_voices_may_share_a_tokenizer_beside_them(talker, tmp_path):
    talker.tokenizer.save_pretrained(tmp_path / "tokenizer")
    talker.save_pretrained(tmp_path / "voice", tokenizer=False)
    assert torch.equal(
        Talker.from_pretrained(tmp_path / "voice").generate("Hi.").codes, talker.generate("Hi.").codes
    )


def test_no_voice_is_refused_with_what_makes_one(tmp_path):
    with pytest.raises(ValueError, match="launch/export_voice.py"):
        Talker.from_pretrained(tmp_path)


def test_int8_weights_are_handed_to_the_session(talker):
    pytest.importorskip("csm_kernels")
    session = dataclasses.replace(talker, weights="int8").session()
    assert session._sampler.weights == "int8"


def test_many_of_none_are_none_and_an_empty_one_is_refused(talker):
    assert talker.generate_many([], [], []) == []
    with pytest.raises(ValueError, match="text 1 is empty"):
        talker.generate_many(["Hi.", " "], [None, None], [1, 2])
    with pytest.raises(ValueError, match="expected one of each"):
        talker.generate_many(["Hi."], [None], [])


def test_a_stream_is_written_as_it_is_made_and_appears_whole(talker, tmp_path):
    timing = talker.generate("Hi.", stream=True).write(tmp_path / "a" / "line.wav")
    whole = talker.generate("Hi.")
    written = read_audio(tmp_path / "a" / "line.wav", sample_rate=8000)
    torch.testing.assert_close(written, whole.waveform.clamp(-1, 1), atol=1e-4, rtol=0)
    assert timing.audio_s == whole.waveform.shape[1] / 8000 and timing.frames == whole.codes.shape[1]
    assert 0 < timing.first_audio_s <= timing.generation_s
    with pytest.raises(ValueError, match="a word of 200"):
        talker.generate("Hi there. " + "x" * 200, stream=True).write(tmp_path / "b.wav")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["line.wav"]


def test_a_speech_without_frames_has_no_audio_and_a_turn_without_frames_a_frame_of_silence(
    talker, monkeypatch
):
    monkeypatch.setattr(Session, "next_frame", lambda *_: None)
    speech, turn = talker.generate("Hi."), talker.speak_turn("Hi.")
    assert speech.waveform.shape == (1, 0) and speech.codes.shape == turn.codes.shape == (5, 0)
    assert speech.timing.audio_s == 0 and speech.timing.first_audio_s == speech.timing.generation_s
    assert torch.equal(turn.waveform, torch.zeros(1, 640)) and turn.timing.audio_s == 0.08


def test_a_turn_is_one_turn_whatever_its_sentences(talker):
    session = talker.session()
    turn = talker.speak_turn(TEXT, "FAYE", session=session)
    (kept,) = session.turns
    assert kept.turn.text == TEXT and kept.turn.speaker == 1 and torch.equal(kept.turn.codes, turn.codes)
    assert len(turn.endings) == 1 and len(talker.generate(TEXT, "FAYE").endings) == 2
    one = "Who are you?"
    alone, generated = talker.speak_turn(one), talker.generate(one)
    assert torch.equal(alone.codes, generated.codes) and torch.equal(alone.waveform, generated.waveform)
    with pytest.raises(ValueError, match="speaker is 'BOB'"):
        talker.speak_turn(one, "BOB")


def test_the_clock_of_a_speech_includes_the_time_for_its_prompt(talker, monkeypatch):
    listen = Session.listen
    monkeypatch.setattr(Session, "listen", lambda *args: time.sleep(0.2) or listen(*args))
    timing = talker.generate("Hi.", prompt=PromptTurn("La.", recording(), 8000)).timing
    assert 0.2 < timing.first_audio_s <= timing.generation_s


def test_rounded_weights_that_nothing_would_read_are_refused(talker):
    nearest = dataclasses.replace(talker.sampling, later_codes="nearest")
    with pytest.raises(ValueError, match="uses no depth decoder"):
        dataclasses.replace(talker, sampling=nearest, weights="int8")


def test_speaking_needs_no_package_that_only_training_or_evaluation_uses():
    root = Path(__file__).resolve().parents[2]
    program = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torchaudio", "deepspeed", "tensorboard", "matplotlib", "transformers"):
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
sys.path[:0] = {[str(root), str(root / "kernels")]!r}
from csm.generation import playback, typed_conversation
from csm.generation.talker import Talker
from csm.system.digests import folder_digests
print(Talker.from_pretrained().generate("Hi.").timing.frames)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and int(done.stdout) > 0, done.stderr


def test_a_model_that_comes_without_code_vectors_gets_those_of_the_talkers_tokenizer():
    talker = Talker.from_pretrained()
    model, vectors = talker.model, talker.model.code_vectors.clone()
    model.code_vectors = None
    assert torch.equal(dataclasses.replace(talker).model.code_vectors, vectors)
