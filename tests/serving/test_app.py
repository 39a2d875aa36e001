"""The endpoints answer as OpenAI's clients expect, and refuse what is wrong in one line."""

import http.client
import io
import json
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from csm.audio.resampling import resample


def ask(address: str, path: str, body=None, **headers: str) -> tuple[int, bytes]:
    """Asks the server; returns status and body."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    request = urllib.request.Request(f"http://{address}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def message(answer: tuple[int, bytes]) -> str:
    return json.loads(answer[1])["error"]["message"]


def test_csm_1b_is_served_with_numbers_for_voices(serve, csm_1b) -> None:
    address = serve(talker=csm_1b)
    health = json.loads(ask(address, "/health")[1])
    assert health["rate"] == 24_000 and health["voices"][:2] == ["0", "1"]
    assert health["codecs"] == ["pcm", "opus"]
    expected = (csm_1b.generate("Hello there.", "1").waveform[0].clamp(-1, 1) * 32767).round()
    request = {"input": "Hello there.", "voice": "1", "response_format": "pcm"}
    status, pcm = ask(address, "/v1/audio/speech", request)
    assert status == 200 and abs(np.frombuffer(pcm, "<i2") - expected.numpy()).max() <= 1


def test_speech_is_what_the_talker_says(serve, talker) -> None:
    address = serve()
    expected = (talker.generate("You and whose army?", "FAYE").waveform[0].clamp(-1, 1) * 32767).round()
    request = {"model": "csm", "input": "You and whose army?", "voice": "FAYE"}
    status, wav = ask(address, "/v1/audio/speech", request)
    assert status == 200
    samples, rate = soundfile.read(io.BytesIO(wav), dtype="int16")
    assert rate == 8000 and np.array_equal(samples, expected.short().numpy())
    status, pcm = ask(address, "/v1/audio/speech", {**request, "response_format": "pcm"})
    assert status == 200 and np.array_equal(np.frombuffer(pcm, "<i2"), samples)
    assert b"csm_first_audio_seconds_count 2" in ask(address, "/metrics")[1]
    assert json.loads(ask(address, "/health")[1])["taken"] == 0


def test_speed_and_style_are_those_of_the_talker(serve, talker) -> None:
    styles = {"calm": torch.eye(4)[2:3], "loud": torch.eye(4)[3:]}
    address = serve(styles=styles)
    assert json.loads(ask(address, "/health")[1])["styles"] == ["calm", "loud"]
    said = {}
    for speed in (None, 0.5):
        for style in (None, "loud"):
            own = replace(talker, style=None if style is None else styles[style])
            expected = own.generate("You and whose army?", "FAYE", speed=speed).waveform[0].clamp(-1, 1)
            request = {"input": "You and whose army?", "voice": "FAYE", "response_format": "pcm"}
            _, pcm = ask(address, "/v1/audio/speech", {**request, "speed": speed, "style": style})
            said[speed, style] = np.frombuffer(pcm, "<i2")
            assert np.array_equal(said[speed, style], (expected * 32767).round().short().numpy())
    own = said.pop((None, None))
    assert not any(np.array_equal(own, other) for other in said.values())


def test_speech_as_opus_is_a_file_of_the_same_sound(serve, talker) -> None:
    pytest.importorskip("av")
    said = talker.generate("You and whose army?", "FAYE").waveform[0]
    request = {"input": "You and whose army?", "voice": "FAYE", "response_format": "opus"}
    status, data = ask(serve(), "/v1/audio/speech", request)
    assert status == 200 and data[:4] == b"OggS"
    samples, rate = soundfile.read(io.BytesIO(data))
    expected = resample(said, 8000, rate).numpy()
    assert rate == 48_000 and abs(len(samples) - len(expected)) <= rate // 50
    both = min(len(samples), len(expected))
    assert np.corrcoef(samples[:both], expected[:both])[0, 1] > 0.8


def test_requests_at_once_share_steps_and_each_gets_its_own_speech(serve, talker) -> None:
    address = serve(sessions=3)
    texts = ("You and whose army? Mine.", "Hello there. Who are you?", "A longer line, for once. Yes.")
    expected = [(talker.generate(text).waveform[0].clamp(-1, 1) * 32767).round().short() for text in texts]
    requests = [{"input": text, "response_format": "pcm"} for text in texts]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda request: ask(address, "/v1/audio/speech", request), requests))
    for (status, pcm), samples in zip(answers, expected, strict=True):
        assert status == 200 and np.array_equal(np.frombuffer(pcm, "<i2"), samples.numpy())
    lines = ask(address, "/metrics")[1].decode().splitlines()
    values = dict(line.split() for line in lines if line[0] != "#")
    steps, speeches = (float(values[f"csm_batch_size_{name}"]) for name in ("count", "sum"))
    assert 0 < steps < speeches, "steps were shared"
    assert float(values["csm_step_seconds_count"]) == steps


def test_who_hangs_up_leaves_the_steps_and_gives_the_place_back(serve) -> None:
    address = serve(sessions=1)
    body = json.dumps({"input": "You and whose army? " * 40, "response_format": "pcm"})
    client = http.client.HTTPConnection(address, timeout=30)
    client.request("POST", "/v1/audio/speech", body)
    assert client.getresponse().read(100)
    client.close()
    deadline = time.monotonic() + 30
    while json.loads(ask(address, "/health")[1])["taken"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert ask(address, "/v1/audio/speech", {"input": "hello"})[0] == 200


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"input": " "}, "input is"),
        ({"input": 3}, "input is"),
        ({"input": "x" * 2001}, "2001 characters: expected at most 2000"),
        ({"voice": "JO"}, "did you mean"),
        ({"response_format": "mp3"}, "expected one of wav, pcm"),
        ({"speed": 3}, "speed is 3: expected 0.5"),
        ({"speed": 10**400}, "speed is 1000"),
        ({"speed": "fast"}, "speed is 'fast': expected a number"),
        ({"speed": True}, "speed is True: expected a number"),
        ({"style": "angry"}, "style is 'angry': expected null or one of the server's styles (none"),
    ],
)
def test_a_wrong_field_is_named(serve, wrong, reason) -> None:
    answer = ask(serve(), "/v1/audio/speech", {"input": "hello", "voice": "JOE", **wrong})
    assert answer[0] == 400 and reason in message(answer)


def test_garbage_is_refused_and_the_next_request_is_served(serve) -> None:
    address = serve(largest_upload=1000)
    for body in (b"\xff\x00{", b"[1]", b"[" * 900):
        assert ask(address, "/v1/audio/speech", body)[0] == 400
    assert "more than 1000 bytes" in message(ask(address, "/v1/audio/speech", b"x" * 5000))
    assert ask(address, "/v1/audio/speech", {"input": "hello"})[0] == 200


def test_a_token_is_asked_for(serve) -> None:
    address = serve(token="secret")
    assert ask(address, "/metrics")[0] == 401
    assert ask(address, "/metrics", Authorization="Bearer wrong")[0] == 401
    assert ask(address, "/metrics", Authorization="Bearer secret")[0] == 200
    assert ask(address, "/metrics?token=secret")[0] == 200


def test_an_upload_is_transcribed(serve) -> None:
    wav = io.BytesIO()
    soundfile.write(wav, np.sin(np.arange(8000)).astype(np.float32), 8000, format="WAV")
    address = serve()

    def upload(data: bytes) -> tuple[int, bytes]:
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        body = head + data + b"\r\n--x--\r\n"
        return ask(
            address, "/v1/audio/transcriptions", body, **{"Content-Type": "multipart/form-data; boundary=x"}
        )

    assert json.loads(upload(wav.getvalue())[1]) == {"text": "hello"}
    bad = upload(b"no audio")
    assert bad[0] == 400 and message(bad).startswith("upload: is no audio")
    assert "file is missing" in message(ask(address, "/v1/audio/transcriptions", b"x"))


def test_the_page_comes_from_the_server_alone(serve) -> None:
    address = serve()
    html = ask(address, "/")[1].decode()
    assert "Talk with a voice" in html and "http://" not in html and "https://" not in html
    for name in ("talk.js", "talk.css", "worklet.js"):
        assert ask(address, f"/page/{name}")[0] == 200
    assert ask(address, "/page/../../app.py")[0] == 404
