"""smart-turn: Whisper's features, a network that is asked once a pause, and what replaces it offline."""

import logging
import time

import pytest
import torch

from csm.conversation import smart_turn
from csm.conversation.smart_turn import (
    LENGTH,
    RATE,
    SmartTurn,
    SmartTurnConfig,
    available_turn_end,
    turn_end_of,
    whisper_features,
)
from csm.conversation.turn_end import SilenceAlone
from csm.data.packages import default_cache
from csm.data.turn_end_model import smart_turn_model

# Computed by the package's own features and network: pipecat-ai 1.14.0, onnxruntime 1.32.0.
SYLLABLES = [(5, 220, 120, 0.914), (5, 120, 220, 0.041), (9, 180, 100, 0.607), (60, 200, 90, 0.792)]


@pytest.fixture(scope="module")
def real() -> SmartTurn:
    """The network of the wheel, where it was fetched before."""
    pytest.importorskip("onnxruntime")
    if not (default_cache() / "smart-turn").is_dir():
        pytest.skip("smart-turn is not in the cache folder: csm serve fetches it")
    return SmartTurn(model=smart_turn_model())


@pytest.fixture
def loudness(tmp_path):
    """A network of the same inputs and outputs: sigmoid of the mean of the last 0.1 s of features."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    numbers = {"starts": [790], "ends": [800], "axes": [2], "all": [1, 2]}
    constants = [helper.make_tensor(name, onnx.TensorProto.INT64, [len(v)], v) for name, v in numbers.items()]
    nodes = [
        helper.make_node("Slice", ["input_features", "starts", "ends", "axes"], ["last"]),
        helper.make_node("ReduceMean", ["last", "all"], ["mean"], keepdims=0),
        helper.make_node("Sigmoid", ["mean"], ["flat"]),
        helper.make_node("Unsqueeze", ["flat", "one"], ["logits"]),
    ]
    constants.append(helper.make_tensor("one", onnx.TensorProto.INT64, [1], [1]))
    graph = helper.make_graph(
        nodes,
        "loudness",
        [helper.make_tensor_value_info("input_features", kind, ["n", 80, 800])],
        [helper.make_tensor_value_info("logits", kind, ["n", 1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "loudness.onnx")
    return tmp_path / "loudness.onnx"


def noise(seconds: float, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seconds", [0.4, 8.0, 11.0])
def test_features_equal_those_of_transformers(seconds) -> None:
    transformers = pytest.importorskip("transformers")
    extractor = transformers.WhisperFeatureExtractor(chunk_length=8)
    turn = noise(seconds) * torch.linspace(0, 1, round(seconds * RATE)) ** 4
    padded = torch.nn.functional.pad(turn[-LENGTH:], (max(0, LENGTH - len(turn)), 0))
    expected = extractor(
        padded.numpy(), sampling_rate=RATE, do_normalize=True, padding="max_length", return_tensors="pt"
    ).input_features[0]
    found = whisper_features(turn)
    assert found.shape == (80, 800) and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_silence_has_finite_features() -> None:
    assert bool(whisper_features(torch.zeros(1000)).isfinite().all())


def test_the_threshold_decides_between_a_shift_and_a_hold(loudness) -> None:
    turn = noise(1.0)
    value = SmartTurn(model=loudness).probability(turn)
    assert 0.5 < value < 0.9 and SmartTurn(model=loudness).probability(0 * turn) < 0.45
    found = []
    for threshold in (value - 0.01, value + 0.01):
        classifier = SmartTurn(SmartTurnConfig(threshold=threshold, shift=0.25, hold=0.9), loudness)
        assert classifier.silence == 0.9, "until the answer is there, the turn is held"
        found += classifier.classify(turn)
    assert [one.silence for one in found] == [0.25, 0.9]
    assert [one.reason.split()[0] for one in found] == ["shift", "hold"]


@pytest.mark.parametrize("syllables, first, last, expected", SYLLABLES)
def test_probabilities_are_those_of_the_networks_own_package(real, syllables, first, last, expected) -> None:
    """Syllables whose pitch moves from `first` to `last` Hz; falling pitch ends a turn."""
    time_s = torch.arange(RATE // 5, dtype=torch.float64) / RATE
    turn = [torch.zeros(RATE // 5)]
    for number in reversed(range(syllables)):
        pitch = first + (last - first) * number / syllables
        waves = [torch.sin(2 * torch.pi * pitch * h * time_s) / h for h in range(1, 20)]
        window = torch.hann_window(len(time_s), periodic=False, dtype=torch.float64)
        turn.insert(0, (0.1 * torch.stack(waves).sum(0) * window).float())
    assert abs(real.probability(torch.cat(turn)) - expected) < 0.02


def test_one_decision_takes_less_than_the_shortest_silence(real) -> None:
    turn, began = noise(8.0), time.process_time()
    for _ in range(3):
        real.probability(turn)
    assert (time.process_time() - began) / 3 < SmartTurnConfig().shift


def test_without_weights_silence_decides_and_one_line_says_so(monkeypatch, caplog) -> None:
    def offline() -> None:
        raise ValueError("pipecat-ai 1.14.0 cannot be fetched (no network)")

    monkeypatch.setattr(smart_turn, "smart_turn_model", offline)
    monkeypatch.setattr(logging.getLogger("csm"), "propagate", True)
    with caplog.at_level(logging.WARNING, logger="csm"):
        assert available_turn_end("smart-turn") == SilenceAlone()
    (line,) = set(caplog.messages)  # a handler that an earlier test left may catch it again
    assert "silence alone" in line and "cannot be fetched" in line and "\n" not in line
    with pytest.raises(ValueError, match="cannot be fetched"):
        turn_end_of("smart-turn")
    assert turn_end_of("silence") == SilenceAlone()


@pytest.mark.parametrize("wrong", [{"threshold": 1.0}, {"shift": 0.0}, {"hold": 0.2}])
def test_settings_that_contradict_each_other_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="expected"):
        SmartTurnConfig(**wrong)
