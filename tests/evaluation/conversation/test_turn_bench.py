"""TurnBench's parquet files are listened to, and the predictions have its scorer's form."""

import io
import json

import numpy as np
import pytest
import soundfile
import torch

from csm.cli import main
from csm.conversation.listener import RATE, ListenerConfig
from csm.conversation.turn_end import SilenceAlone
from csm.evaluation.conversation.recorded_listener import RecordedListener
from csm.evaluation.conversation.turn_bench import Recording, predicted, read_recordings, write_predictions

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


class LoudIsSpeech:
    def __call__(self, window: torch.Tensor) -> float:
        return float(window.square().mean().sqrt() > 0.05)


def listener() -> RecordedListener:
    return RecordedListener(ListenerConfig(), SilenceAlone(), LoudIsSpeech())


def channel(*spans: tuple[float, float], seconds: float = 10.0) -> torch.Tensor:
    samples = torch.zeros(round(seconds * RATE))
    for start, end in spans:
        count = round((end - start) * RATE)
        samples[round(start * RATE) :][:count] = 0.3 * torch.sin(torch.arange(count) / 5)
    return samples


def wav(samples: torch.Tensor) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples.numpy(), RATE, format="FLAC")
    return file.getvalue()


def test_ends_and_interruptions_are_committed_when_the_rule_is_met():
    # The first speaker's turn has a pause; the second murmurs at 2 s and takes the floor at 4 s.
    first = channel((0.5, 3.0), (3.2, 4.5))
    second = channel((2.0, 2.4), (4.0, 7.0))
    found = predicted(Recording("20", (first, second)), listener)
    (ended,) = found["speaker_1"].eot
    assert 5.0 <= ended < 5.1 and found["speaker_1"].interruption == []
    (interrupted,) = found["speaker_2"].interruption
    assert 5.0 < interrupted < 5.1, "one second of speech over the other's"
    assert [round(time, 1) for time in found["speaker_2"].eot] == [2.9, 7.5]


def test_shards_are_read_and_the_file_is_strictly_ordered_within_the_audio(tmp_path):
    rows = {
        "conversation_id": ["20", "21"],
        "speaker_1_audio": [{"bytes": wav(channel((0.5, 2.0))), "path": "a.flac"}] * 2,
        "speaker_2_audio": [{"bytes": wav(channel((3.0, 4.0))), "path": "b.flac"}] * 2,
    }
    parquet.write_table(arrow.table(rows), tmp_path / "dev.parquet")
    recordings = [*read_recordings(tmp_path)]
    assert [one.name for one in recordings] == ["20", "21"]
    found = {one.name: predicted(one, listener) for one in recordings}
    write_predictions(tmp_path / "predictions.json", found)
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert written["schema_version"] == 1 and len(written["predictions"]) == 2
    for row in written["predictions"]:
        assert set(row) == {"conversation_id", "speaker_1", "speaker_2"}
        for speaker in ("speaker_1", "speaker_2"):
            assert set(row[speaker]) == {"eot", "interruption"}
            times = [*row[speaker]["eot"], *row[speaker]["interruption"]]
            assert len(row[speaker]["eot"]) == 1 and all(0 <= time <= 10 for time in times)
            assert all(np.diff(row[speaker]["eot"]) > 0)


def test_what_is_no_turn_bench_is_refused_in_one_line(tmp_path, capsys):
    with pytest.raises(ValueError, match="no parquet files in"):
        [*read_recordings(tmp_path)]
    parquet.write_table(arrow.table({"conversation_id": ["1"]}), tmp_path / "a.parquet")
    words = ["evaluate-conversation", "--turn-bench", str(tmp_path), "--output", str(tmp_path / "out")]
    assert (
        main(words) == 2 and "lacks the columns speaker_1_audio, speaker_2_audio" in capsys.readouterr().err
    )
    table = {"conversation_id": ["1"], "speaker_1_audio": [b"x"], "speaker_2_audio": [b"x"]}
    parquet.write_table(arrow.table(table), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="speaker_1_audio of conversation 1 is no audio"):
        [*read_recordings(tmp_path)]
