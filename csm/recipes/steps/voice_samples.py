"""Held-out lines that a model speaks at each validation of its training, to be listened to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from csm.data.code_shards import EncodedTurn
from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.generation.sampling import SamplingConfig
from csm.generation.talker import Talker
from csm.generation.voices import Voice
from csm.model import CSMModel
from csm.recipes.run_config import RunConfig
from csm.recipes.steps.finish_model import assembled
from csm.recipes.steps.kept_samples import corpus_without_turns, spoken_lines
from csm.system.log import log
from csm.tokenizer.opening import VoiceTokenizer, open_tokenizer
from csm.training.finetuning import FinetuneConfig
from csm.training.samples import Clips

# Lines of a validation, and the longest speech: an untrained model may not end a turn.
LINES, MAX_SECONDS = 2, 8.0


class VoiceSamples:
    """Lines of one voice, spoken by a copy of the model, so that nothing of the training is touched.

    Args:
        lines: Turns whose texts are spoken.
        corpus: Their corpus.
        tokenizer: Tokenizer of the model's codes, on the CPU.
        voice: Voice that speaks.
        sampling: How codes are sampled.
        finetune: Whether the model in training has adapters.
    """

    def __init__(
        self,
        lines: Sequence[Turn],
        corpus: Corpus,
        tokenizer: VoiceTokenizer,
        voice: Voice,
        sampling: SamplingConfig,
        finetune: FinetuneConfig,
    ) -> None:
        self.lines, self.corpus, self.tokenizer, self.voice = lines, corpus, tokenizer, voice
        self.sampling = replace(sampling, max_seconds=min(sampling.max_seconds, MAX_SECONDS))
        self.finetune = finetune

    def originals(self) -> Clips:
        """Returns the recordings of the lines."""
        rate = self.tokenizer.config.sample_rate
        return {turn.id: (read_turn(self.corpus, turn, rate), rate) for turn in self.lines}

    def samples(self, model: CSMModel) -> Clips:
        """Returns the lines as the model speaks them now; none where a line cannot be spoken."""
        weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        copy = assembled(model.config, weights, self.finetune).eval()
        talker = Talker(
            model=copy,
            tokenizer=self.tokenizer,
            voices={self.voice.name: self.voice},
            sampling=self.sampling,
        )
        # Generation is fp32, as a finished model's.
        with torch.autocast(next(model.parameters()).device.type, enabled=False):
            try:
                return {turn.id: self._spoken(talker, turn.text) for turn in self.lines}
            except ValueError as error:
                log.warning("no samples of this validation: %s", error)
                return {}

    def _spoken(self, talker: Talker, text: str) -> tuple[torch.Tensor, int]:
        speech = talker.speak_turn(text, self.voice.name)
        return speech.waveform.clone(), speech.sample_rate


def voice_samples(
    run: RunConfig,
    codes: Path,
    encoded: Mapping[str, EncodedTurn],
    numbers: Mapping[str, int],
    tokenizer: str | None,
) -> VoiceSamples | None:
    """Returns the samples of a run's main voice.

    None where they are switched off, the tokenizer is not in its folder any more, no held-out line fits, or
    ZeRO-3 cuts the weights into pieces.
    """
    if not run.training.samples or run.training.zero_stage == 3 or tokenizer is None:
        return None
    if not any(Path(tokenizer).glob("*.safetensors")):
        return None
    codec = open_tokenizer(Path(tokenizer), run.model.num_codebooks)
    voice, lines = spoken_lines(run.corpus, codes, encoded, codec, LINES)
    if not lines or voice.name in run.data.exclude_speakers:
        return None
    voice = voice._replace(number=numbers[voice.name])
    return VoiceSamples(lines, corpus_without_turns(run.corpus), codec, voice, run.sampling, run.finetune)
