"""The page in a real browser: a recorded user talks, is answered, interrupts, and keeps the conversation."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from websockets.sync.client import connect

from csm.audio.files import read_audio, write_audio

ROOT = Path(__file__).resolve().parents[2]
RATE = 48_000
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine"),
]


class Browser:
    """A page over Chromium's remote debugging."""

    def __init__(self, socket) -> None:
        self._socket, self._number = socket, 0

    def call(self, method: str, **parameters) -> dict:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while (answer := json.loads(self._socket.recv(timeout=60))).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def evaluate(self, script: str):
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.evaluate(script):
            assert time.monotonic() < end, f"{script}: {self.evaluate('document.body.innerText')}"
            time.sleep(0.2)

    def picture(self, path: Path, width: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False
        )
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@pytest.fixture
def microphone(excerpt, tmp_path) -> Path:
    """A user who asks, and 5 s later, in the middle of the reply, interrupts with a longer line."""
    turns = {turn.text: turn for turn in excerpt.turns("test")}
    lines = [
        next(turns[text] for text in turns if start in text) for start in ("stay put", "one good reason")
    ]
    first, second = (read_audio(excerpt.root / turn.audio, sample_rate=RATE)[0] for turn in lines)
    pause = torch.zeros(5 * RATE)
    user = torch.cat([torch.zeros(RATE), first, pause, second, torch.zeros(60 * RATE)])
    write_audio(tmp_path / "user.wav", user[None], RATE)
    return tmp_path / "user.wav"


@pytest.fixture
def address(tmp_path, microphone):
    """The packaged voice behind `csm serve`, with a style by the user's recording."""
    script = tmp_path / "script.txt"
    script.write_text(
        "I had a plane to catch that morning, and there was no time to lose, so I packed my things and ran "
        "down to the harbor. The captain was waiting there.\nAll right, I will listen to you.\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    command = [sys.executable, "-m", "csm", "serve", "--port", "8799", "--sessions", "2", "--script", script]
    command += ["--style", f"lively={microphone}"]
    with subprocess.Popen(command, env=environment, cwd=ROOT) as process:
        try:
            end = time.monotonic() + 90
            while True:
                try:
                    urllib.request.urlopen("http://127.0.0.1:8799/health", timeout=5).close()
                    break
                except OSError:
                    assert process.poll() is None and time.monotonic() < end, "the server did not start"
                    time.sleep(0.3)
            yield "http://127.0.0.1:8799/"
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def browser(microphone, address, tmp_path):
    profile = tmp_path / "profile"
    command = [
        *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"),
        *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
        *("--autoplay-policy=no-user-gesture-required", f"--user-data-dir={profile}", "about:blank"),
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 60
            while not (profile / "DevToolsActivePort").is_file():
                assert process.poll() is None and time.monotonic() < end, "the browser did not start"
                time.sleep(0.2)
            time.sleep(0.5)
            port = (profile / "DevToolsActivePort").read_text().split()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
                page = next(one for one in json.load(answer) if one["type"] == "page")
            with connect(page["webSocketDebuggerUrl"], max_size=2**26) as socket:
                found = Browser(socket)
                found.call("Page.enable")
                found.call("Page.navigate", url=address)
                found.wait("document.querySelectorAll('#speaker option').length > 0", 30)
                yield found
        finally:
            process.terminate()
            process.wait(30)


WATCH = """
window.sizes = []; window.said = [];
window.whole = WebSocket.prototype.send;
WebSocket.prototype.send = function (message) {
  if (typeof message !== "string") sizes.push(message.byteLength);
  else window.first_message ??= JSON.parse(message);
  return whole.call(this, message);
};
new MutationObserver(() => said.push(id("status").textContent)).observe(id("status"), { childList: true });
"""
WAV_BASE64 = """
wav().arrayBuffer().then((b) => new Promise((done) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result.split(",")[1]);
  reader.readAsDataURL(new Blob([b]));
}))
"""


def downloaded(browser) -> tuple[np.ndarray, int, list[dict]]:
    """Samples [S, 2], their rate, and the turns of the conversation."""
    data = base64.b64decode(browser.evaluate(WAV_BASE64))
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    return samples, rate, json.loads(browser.evaluate("transcript().text()"))["turns"]


def assert_turns_are_where_they_say(samples: np.ndarray, rate: int, turns: list[dict]) -> None:
    """The sound of each channel lies within its turns."""
    for channel in (0, 1):
        spoken = np.zeros(len(samples), dtype=bool)
        for turn in turns:
            if turn["channel"] == channel:
                # Recorders and clocks differ by the codec's and the listener's margins.
                spoken[round((turn["start"] - 0.3) * rate) : round((turn["end"] + 0.3) * rate)] = True
        power = samples[:, channel] ** 2
        assert spoken.any() and power[spoken].mean() > 20 * power[~spoken].mean(), channel


def test_a_user_talks_interrupts_types_and_keeps_the_conversation(browser, tmp_path) -> None:
    pictures = Path(os.environ.get("CSM_PICTURES", tmp_path))
    browser.evaluate(WATCH)
    assert browser.evaluate("[...id('style').options].map((one) => one.value)") == ["", "lively"]
    browser.evaluate("id('style').value = 'lively'; id('talk').click()")
    browser.wait("spans.voice.length >= 1", 40)
    browser.picture(pictures / "talking.png", 800)
    browser.wait("id('transcript').querySelectorAll('.voice').length >= 2", 60)
    turns = browser.evaluate("turns.map((turn) => [turn.who, turn.text])")
    assert [who for who, _ in turns[:4]] == ["user", "voice", "user", "voice"], turns
    assert "stay" in turns[0][1].lower() and "reason" in turns[2][1].lower()
    assert not turns[1][1].endswith("waiting there."), "it was interrupted"
    assert turns[3][1].startswith("All right")
    browser.evaluate("id('text').value = 'One more thing.'; id('typed').requestSubmit()")
    browser.wait("turns.length >= 6", 60)
    browser.picture(pictures / "page_800.png", 800)
    browser.picture(pictures / "page_360.png", 360)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360
    assert browser.evaluate("[first_message.style, first_message.replier]") == ["lively", "script"]
    assert any("sent as Opus." in text for text in browser.evaluate("said"))
    sizes = browser.evaluate("sizes")
    samples, rate, rows = downloaded(browser)
    assert rate == RATE and abs(len(sizes) - 50 * len(samples) / rate) < 50, "a packet every 20 ms"
    assert np.mean(sizes) < 160, "32 kbit/s are 80 bytes in 20 ms; as PCM16 it would be 1,920"
    assert_turns_are_where_they_say(samples, rate, rows)
    assert [row["channel"] for row in rows[:4]] == [0, 1, 0, 1]
    assert all(row["start"] < row["end"] and row["text"] for row in rows)


def test_a_browser_without_an_opus_encoder_talks_pcm16(browser) -> None:
    browser.evaluate(WATCH + "delete window.AudioEncoder;")
    browser.evaluate("id('talk').click()")
    browser.wait("id('transcript').querySelectorAll('.voice').length >= 1", 60)
    assert any("sent as PCM16: this browser codes no Opus." in text for text in browser.evaluate("said"))
    samples, rate, rows = downloaded(browser)
    assert rate == 11_025 and set(browser.evaluate("sizes")) == {2 * 221}
    before = round((rows[1]["end"] - 1) * rate)  # the second line, which interrupts, is not a turn yet
    assert_turns_are_where_they_say(samples[:before], rate, rows)
    assert "stay" in rows[0]["text"].lower() and [row["channel"] for row in rows[:2]] == [0, 1]
