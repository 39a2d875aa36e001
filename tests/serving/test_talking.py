"""Conversations over a WebSocket: audio both ways, and an end for those who break the rules."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from csm.conversation.turn_end import SilenceAlone
from csm.serving.audio_codecs import OPUS_RATE, OpusLine
from csm.serving.service import Service
from csm.serving.settings import ServerSettings
from csm.serving.talking import Talk

RATE = 8000
SILENCE = np.zeros(RATE // 50, "<i2").tobytes()


@contextmanager
def opened(address: str, **first) -> Iterator[ClientConnection]:
    with connect(f"ws://{address}/talk", open_timeout=20) as socket:
        socket.send(json.dumps({"rate": RATE, **first}))
        yield socket


def talk(socket, seconds: float) -> tuple[np.ndarray, list[dict]]:
    """Sends silence in real time; returns the voice's audio and the events."""
    audio, events = [], []
    begin = time.monotonic()
    for number in range(round(seconds * 50)):
        socket.send(SILENCE)
        while isinstance(got := socket.recv(timeout=20), str):
            events.append(json.loads(got))
        audio.append(np.frombuffer(got, "<i2"))
        time.sleep(max(0.0, begin + number / 50 - time.monotonic()))
    return np.concatenate(audio), events


def closing(socket) -> str:
    """Reads to the end; returns the error."""
    said = ""
    try:
        while True:
            got = socket.recv(timeout=20)
            if isinstance(got, str) and json.loads(got)["type"] == "error":
                said = json.loads(got)["message"]
    except ConnectionClosed:
        return said


def test_a_typed_turn_is_answered_with_as_much_audio_as_was_sent(serve) -> None:
    with opened(serve(), speaker="FAYE", replier="script") as socket:
        assert json.loads(socket.recv(timeout=20)) == {"type": "ready", "rate": RATE, "speaker": "FAYE"}
        socket.send(json.dumps({"type": "text", "text": "hello there"}))
        audio, events = talk(socket, 2.5)
    assert len(audio) == 2.5 * RATE and np.abs(audio).max() > 100
    kinds = [event.get("kind") for event in events]
    assert kinds[:2] == ["user_begins", "user_ends"] and {"voice_begins", "heard"} <= {*kinds}
    assert next(event for event in events if event["kind"] == "heard")["text"] == "hello there"


def test_a_conversation_in_a_style_sounds_like_it(serve) -> None:
    address, said = serve(styles={"loud": torch.eye(4)[3:]}), {}
    for style in (None, "loud"):
        with opened(address, speaker="FAYE", replier="script", style=style) as socket:
            socket.recv(timeout=20)
            socket.send(json.dumps({"type": "text", "text": "hello there"}))
            said[style] = talk(socket, 2.0)[0]
    spectra = {style: np.abs(np.fft.rfft(audio)) for style, audio in said.items()}
    assert np.abs(said["loud"]).max() > 100 and np.corrcoef(spectra[None], spectra["loud"])[0, 1] < 0.999


def test_a_conversation_in_opus_is_packets_both_ways(serve) -> None:
    pytest.importorskip("av")
    line, packets, kinds = OpusLine(OPUS_RATE), [], []
    quiet = line.encode(torch.zeros(2 * OPUS_RATE))
    with opened(serve(), rate=OPUS_RATE, codec="opus", replier="script") as socket:
        assert json.loads(socket.recv(timeout=20))["rate"] == RATE, "events count samples of the voice"
        socket.send(json.dumps({"type": "text", "text": "hello there"}))
        begin = time.monotonic()
        for number, packet in enumerate(quiet):
            socket.send(packet)
            time.sleep(max(0.0, begin + number / 50 - time.monotonic()))
        while len(packets) < len(quiet) - 8:  # 122 ms are in the resampler of a voice at 8 kHz
            got = socket.recv(timeout=20)
            if isinstance(got, str):
                kinds.append(json.loads(got).get("kind"))
            else:
                packets.append(got)
        socket.send(b"\xff")
        assert "1 bytes is no Opus packet" in closing(socket)
    voice = torch.cat([line.decode(packet) for packet in packets])
    assert "voice_begins" in kinds and voice.abs().max() > 0.003
    assert len(voice) == len(packets) * OPUS_RATE // 50


def test_a_wrong_opening_is_answered_in_one_line(serve) -> None:
    address = serve()
    for first, reason in (
        ({"rate": 1}, "rate is 1"),
        ({"rate": "x"}, "rate is 'x'"),
        ({"speaker": "BOB"}, "speaker is 'BOB'"),
        ({"speaker": 3}, "speaker is 3"),
        ({"replier": "none"}, "replier is 'none'"),
        ({"style": "none"}, "style is 'none'"),
        ({"codec": "mp3"}, "codec is 'mp3': expected one of pcm, opus"),
        ({"codec": "opus"}, "rate is 8000: expected 48000 Hz with codec opus"),
    ):
        with opened(address, **first) as socket:
            assert reason in closing(socket)


GARBAGE = (
    (b"\x00", "even number"),
    ("{", "no JSON"),
    ("[" * 90_000, "no JSON"),
    ('"x"', "expected an object"),
    ('{"type": "x"}', "type is 'x'"),
    (json.dumps({"type": "text", "text": "x" * 3000}), "3000 characters"),
    (json.dumps({"type": "text", "text": " "}), "text is empty"),
    (np.zeros(RATE * 5, "<i2").tobytes(), "ahead of time"),
)


def test_garbage_and_floods_end_their_own_conversation_alone(serve) -> None:
    address = serve()
    with opened(address) as other:
        assert json.loads(other.recv(timeout=20))["type"] == "ready"
        for wrong, reason in GARBAGE:
            with opened(address) as socket:
                assert json.loads(socket.recv(timeout=20))["type"] == "ready"
                socket.send(wrong)
                assert reason in closing(socket)
            assert len(talk(other, 0.1)[0]) == 0.1 * RATE


def test_one_speaker_too_many_is_refused_with_the_reason(serve) -> None:
    address = serve(sessions=1)
    with opened(address) as first:
        assert json.loads(first.recv(timeout=20))["type"] == "ready"
        with connect(f"ws://{address}/talk", open_timeout=20) as second:
            assert "all 1 places are taken" in closing(second)
        assert len(talk(first, 0.1)[0]) == 0.1 * RATE


def test_who_is_silent_too_long_loses_the_place(serve) -> None:
    address = serve(sessions=1, idle=0.3)
    with opened(address) as socket:
        assert "no message for 0.3 s" in closing(socket)
    with opened(address) as socket:
        assert json.loads(socket.recv(timeout=20))["type"] == "ready"


def test_another_servers_page_and_a_wrong_token_are_refused(serve) -> None:
    address = serve(token="secret")
    for query, headers in (("", {}), ("?token=secret", {"Origin": "http://evil.example"})):
        with connect(f"ws://{address}/talk{query}", additional_headers=headers) as socket:
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=20)
            assert closed.value.rcvd.code == 1008
    with connect(f"ws://{address}/talk?token=secret", origin=f"http://{address}") as socket:
        socket.send(json.dumps({"rate": RATE}))
        assert json.loads(socket.recv(timeout=20))["type"] == "ready"


def test_conversations_end_turns_as_the_service_states(talker) -> None:
    turn_end = SilenceAlone(0.7)
    service = Service(talker=talker, transcriber=None, settings=ServerSettings(sessions=1), turn_end=turn_end)
    live = Talk(None, service)._conversation(talker, "FAYE", "echo")
    assert live.turn_end is turn_end
    live.close()
