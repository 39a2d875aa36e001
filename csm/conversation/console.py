"""A live conversation at the terminal: typed lines, or a microphone."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from csm.conversation.events import Event
from csm.conversation.live import LiveConversation

STEP_S = 0.02
LONGEST_REPLY_S = 120.0


class Reply(NamedTuple):
    """A reply: its words, float32 [S], and why there is none, "" if there is one."""

    text: str
    waveform: Tensor
    failure: str


def typed_replies(live: LiveConversation, lines: Iterable[str]) -> Iterator[Reply]:
    """Types lines as they arrive; yields the whole reply to each. Empty lines are skipped.

    Args:
        live: Conversation whose worker charges nothing: no caller waits for its clock.
        lines: The user's turns.
    """
    for line in lines:
        if line.strip():
            live.type(line)
            yield _whole_reply(live)


def _whole_reply(live: LiveConversation) -> Reply:
    known, parts = len(live.log), []
    for _ in range(round(LONGEST_REPLY_S / STEP_S)):
        parts.append(live.speak(round(STEP_S * live.rate)))
        new = live.log.after(known)
        ended = [event for event in new if event.kind in ("said", "failed")]
        if ended:
            failed = next((event.text for event in ended if event.kind == "failed"), "")
            said = next((event.text for event in ended if event.kind == "said"), "")
            if said or failed:
                return Reply(said, torch.cat(parts), "" if said else failed)
    return Reply("", torch.cat(parts), f"the reply is longer than {LONGEST_REPLY_S:g} s")


def microphone_events(live: LiveConversation) -> Iterator[Event]:
    """Converses by microphone and loudspeaker until it is interrupted; yields what happens.

    Args:
        live: Conversation whose worker runs in real time.

    Raises:
        ValueError: There is no sound device.
    """
    sound: Any = importlib.import_module("sounddevice")
    known, block = len(live.log), round(STEP_S * live.rate)

    def callback(heard: Any, spoken: Any, frames: int, times: Any, status: Any) -> None:
        samples: Float[Tensor, " S"] = torch.from_numpy(heard[:, 0].copy())
        spoken[:, 0] = live.step(samples, live.rate).numpy()[:frames]

    try:
        stream = sound.Stream(samplerate=live.rate, channels=1, blocksize=block, callback=callback)
    except sound.PortAudioError as error:
        raise ValueError(f"no microphone or loudspeaker ({error}); type instead, or run csm serve") from error
    with stream:
        while stream.active:
            new = live.log.after(known)
            known += len(new)
            yield from new
            time.sleep(0.05)
