"""The vocoder's signal network on one thread: a stream alone and several at once, beside plain torch."""

from functools import partial

import pytest
import torch

from csm_kernels import VocoderState, VocoderWeights, vocoder_frames
from csm_kernels.vocoder_frames.weights import SHAPES

FRAMES, SECONDS = 10, 0.1
WEIGHTS = 746_320  # of all matrices
TORCH, INT8 = "plain torch", "csm int8"


@pytest.fixture(autouse=True)
def one_thread():
    """One thread, as on a server with one stream per core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_weights() -> VocoderWeights:
    generator = torch.Generator().manual_seed(0)
    tensors = {n: torch.randn(s, generator=generator) * s[-1] ** -0.5 for n, s in SHAPES.items()}
    return VocoderWeights(**{**tensors, "gain_bias": torch.full((1,), -2.0)})


@pytest.mark.parametrize("name", ["csm", INT8, TORCH])
@pytest.mark.parametrize("streams", [1, 3, 12])
def test_vocoder(name, streams, device, compare, benchmark):
    if device.type != "cpu":
        pytest.skip("the reference runs there, one row after the other")

    def contenders():
        weights, generator = random_weights(), torch.Generator().manual_seed(1)
        conditions = torch.randn(streams, FRAMES, 4, 80, generator=generator).tanh()
        periods = torch.randint(32, 256, (streams, FRAMES), generator=generator)
        state = VocoderState.silence(streams)
        call = partial(vocoder_frames, weights, conditions, periods, state)
        ours, theirs = (call(impl=impl)[0][:, :160] for impl in ("auto", "reference"))
        error = float((ours - theirs).abs().max() / theirs.abs().max())
        assert error < 1e-5, f"the first frame differs by {error:.1e}"
        return {
            "csm": lambda: call,
            INT8: lambda: partial(vocoder_frames, weights.int8(), conditions, periods, state),
            TORCH: lambda: partial(call, impl="reference"),
        }

    compare(
        name,
        f"vocoder_frames, {streams} streams, {FRAMES} frames of 10 ms",
        contenders,
        flops=2 * WEIGHTS * 4 * FRAMES * streams,
        moved=(1 if name == INT8 else 4) * WEIGHTS * 4 * FRAMES,
        bars={TORCH: 5.0},
    )
    if not benchmark.disabled:
        benchmark.extra_info["real_time_factor_of_a_stream"] = (
            benchmark.stats.stats.median / SECONDS / streams
        )
