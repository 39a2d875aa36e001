"""A live conversation as a subject of the bench, in simulated real time."""

from __future__ import annotations

import time

from csm.conversation.backchannels import Backchannels
from csm.conversation.live import LiveConversation
from csm.conversation.live_config import LiveConfig
from csm.conversation.repliers import ScriptReplier
from csm.conversation.transcriber import Transcriber
from csm.conversation.turn_end import TurnEnd
from csm.conversation.worker import Charge, SimulatedWorker
from csm.generation.talker import Talker

# Longer than any event: a reply that ends by itself would look like one that yields.
SCRIPT = (
    "I had a plane to catch that morning, and there was no time to lose, so I packed my things and ran down "
    "to the harbor. The captain was waiting for me by the old boat, and he did not look happy at all.",
    "All right, I will listen to you now.",
)


class BenchConversation(LiveConversation):
    """A conversation whose work is charged to its clock by the CPU time that it took.

    Args:
        talker: Voice.
        transcriber: Recogniser of the user's words.
        config: Settings.
        charge: Seconds that a unit costs, given its measured seconds; None charges these.
        turn_end: What tells the end of the user's turn; None is 0.5 s of silence.
        backchannels: What separates them from short interruptions; None takes the recognised words.
    """

    def __init__(
        self,
        talker: Talker,
        transcriber: Transcriber,
        config: LiveConfig | None = None,
        charge: Charge | None = None,
        turn_end: TurnEnd | None = None,
        backchannels: Backchannels | None = None,
    ) -> None:
        worker = SimulatedWorker(charge, timer=time.process_time)
        super().__init__(
            talker,
            ScriptReplier(SCRIPT),
            config,
            worker=worker,
            transcriber=transcriber,
            turn_end=turn_end,
            backchannels=backchannels,
        )

    def context_error(self) -> float | None:
        """Frames by which the context's first reply differs from what was played of it."""
        ends, begins = self.log.of("voice_ends"), self.log.of("voice_begins")
        if not ends or not self.speaker.turns:
            return None
        frame = self.speaker.talker.tokenizer.config.samples_per_frame
        kept = [context.turn for context in self.speaker.session.turns]
        first = [turn for turn in kept if turn.id == "spoken"]
        reply = self.speaker.turns[1].text if len(self.speaker.turns) > 1 else ""
        frames = 0
        for turn in first:
            if not reply.startswith(turn.text):
                break
            frames, reply = frames + turn.codes.shape[1], reply[len(turn.text) :].strip()
        held = sum(self._holds(ends[0].at))
        return abs(frames - (ends[0].since - begins[0].at - held) / frame)

    def _holds(self, until: int) -> list[int]:
        """Samples of each pause of the first reply that ended in a resumption."""
        holds = [event.at for event in self.log.of("hold") if event.at < until]
        return [
            event.at - holds[index] for index, event in enumerate(self.log.of("resume")) if event.at < until
        ]
