"""The questions by name."""

from __future__ import annotations

from csm.research.losses import Losses
from csm.research.memory import Memory
from csm.research.question import Question
from csm.research.unified_vs_cascade import UnifiedVsCascade
from csm.research.voice_semantics import VoiceSemantics

QUESTIONS: dict[str, Question] = {
    question.name: question for question in (VoiceSemantics(), Memory(), UnifiedVsCascade(), Losses())
}
