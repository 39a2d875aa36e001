"""Which implementation runs: by device and dtype, never by trying; one warning where none is compiled."""

import importlib.util
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from csm_kernels import dispatch, ema_update, interpolated_attention, native, rvq_search
from csm_kernels.rvq_search import cpu

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def search(impl: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, codebooks = torch.randn(20, 8, generator=generator), torch.randn(2, 30, 8, generator=generator)
    return list(rvq_search(x.to(dtype), codebooks.to(dtype), impl=impl))


def update(impl: str) -> list[Tensor]:
    codebooks = torch.randn(2, 30, 8, generator=torch.Generator().manual_seed(0))
    state = codebooks, torch.zeros(2, 30), torch.zeros(2, 30, 8)
    ema_update(torch.ones(4, 8), torch.zeros(4, 2, dtype=torch.int64), *state, step=1, impl=impl)
    return list(state)


def attend(impl: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    q, k = (torch.randn(n, 2, 8, generator=torch.Generator().manual_seed(n)).to(dtype) for n in (9, 5))
    ends = {"cu_seqlens_q": torch.tensor([0, 9]), "cu_seqlens_k": torch.tensor([0, 5])}
    return [interpolated_attention(q, k, k, **ends, impl=impl)]


OPERATIONS: list[Callable[..., list[Tensor]]] = [search, update, attend]
each = pytest.mark.parametrize("operation", OPERATIONS)
compiled = pytest.mark.skipif(not native.instruction_sets(), reason="no compiled kernels")


def forget() -> None:
    for cached in (native.library, native.instruction_sets, native.kernel):
        cached.cache_clear()


@pytest.fixture
def nothing_compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if "_native" in name else find_spec(name, *rest)
    )
    forget()
    yield
    monkeypatch.undo()
    forget()


@each
def test_without_a_library_cpu_raises_one_clear_error(operation, nothing_compiled):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(
            ValueError, match="'cpu' needs .*compiled at the installation.*impl='auto'"
        ) as raised:
            operation("cpu")
    assert raised.value.__cause__ is None and raised.value.__context__ is None


def test_without_a_library_auto_is_the_blocked_code_and_says_so_once(nothing_compiled):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for operation in (*OPERATIONS, *OPERATIONS):
            assert all(
                torch.equal(a, b) for a, b in zip(operation("auto"), operation("blocked"), strict=True)
            )
    ours = [str(warning.message) for warning in said if "csm_kernels" in str(warning.message)]
    assert len(ours) == 1 and "compiler" in ours[0]


@compiled
@each
def test_auto_is_the_compiled_kernel_on_the_cpu(operation):
    assert dispatch.choose("auto", CPU, torch.float32) == "cpu"
    assert all(torch.equal(a, b) for a, b in zip(operation("auto"), operation("cpu"), strict=True))


@compiled
def test_a_kernel_that_fails_is_heard_and_not_replaced(monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(cpu, "search", broken)
    with pytest.raises(RuntimeError, match="out of order"):
        search("auto")


def test_float64_runs_in_torch_and_no_compiled_kernel_takes_it():
    for device in (CPU, CUDA):
        assert dispatch.choose("auto", device, torch.float64) == "blocked"
        for impl in ("cpu", "triton"):
            with pytest.raises(ValueError, match="no float64"):
                dispatch.choose(impl, device, torch.float64)
    assert search("auto", torch.float64)[2].dtype == attend("auto", torch.float64)[0].dtype == torch.float64


def test_on_cuda_auto_is_triton_where_it_is_installed_and_plain_torch_elsewhere(monkeypatch):
    for there, expected in ((True, "triton"), (False, "blocked")):
        monkeypatch.setattr(dispatch, "has_triton", lambda there=there: there)
        assert dispatch.choose("auto", CUDA, torch.bfloat16) == expected
    with pytest.raises(ValueError, match="'triton' needs CUDA tensors"):
        dispatch.choose("triton", CUDA, torch.float32)
    with pytest.raises(ValueError, match="'cpu' needs CPU tensors"):
        dispatch.choose("cpu", CUDA, torch.float32)


def test_a_gpu_before_compute_capability_8_takes_plain_torch_and_says_so_once(monkeypatch):
    found = {"cuda:0": (7, 5), "cuda:1": (8, 0)}
    monkeypatch.setattr(dispatch, "has_triton", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: found[str(device)])
    dispatch.too_old.cache_clear()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            assert dispatch.choose("auto", torch.device("cuda:0"), torch.float32) == "blocked"
            assert dispatch.choose("auto", torch.device("cuda:1"), torch.float32) == "triton"
    assert [str(each.message) for each in said] == [
        "csm_kernels: cuda:0 has compute capability 7.5, the Triton kernels need 8.0; "
        "plain torch runs in their place, several times slower."
    ]
    with pytest.raises(ValueError, match="'triton' needs .*compute capability 8.0.* on cuda:0"):
        dispatch.choose("triton", torch.device("cuda:0"), torch.float32)
    dispatch.too_old.cache_clear()


@each
def test_triton_refuses_cpu_tensors_and_an_unknown_name_is_named(operation):
    with pytest.raises(ValueError, match="'triton' needs CUDA tensors.* on cpu"):
        operation("triton")
    with pytest.raises(ValueError, match="impl: expected one of auto, .*got 'fast'"):
        operation("fast")


@pytest.mark.parametrize("impl", ["reference", "blocked"])
@each
def test_plain_torch_runs_anywhere_when_asked_for(operation, impl):
    assert dispatch.choose(impl, CUDA, torch.float64) == impl
    reference = operation("reference")
    for found, expected in zip(operation(impl), reference, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
