"""Products in float8: of the rounded factors, in the layouts that CUDA takes, and only in training."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from csm.losses import ConversationTargets, conversational_loss
from csm.network import float8
from csm.network.execution import ExecutionConfig, apply_execution
from csm.network.float8 import GRADIENT, INPUT, Float8Linear, Rounded, product, require_float8, use_float8

# Half the distance of neighbours, relative: 3 and 2 bits of mantissa.
ROUNDING = {INPUT: 2**-4, GRADIENT: 2**-3}


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def calls(monkeypatch) -> list[tuple[Tensor, Tensor]]:
    """Checks what CUDA asks of float8 products, which a CPU does not."""
    found: list[tuple[Tensor, Tensor]] = []
    scaled_mm = torch._scaled_mm

    def checked(a: Tensor, b: Tensor, **options: object) -> Tensor:
        assert a.stride(1) == 1 and b.stride(0) == 1, "rows of a and columns of b, one after the other"
        assert all(size % 16 == 0 for size in (*a.shape, *b.shape))
        assert (a.dtype, b.dtype) != (GRADIENT, GRADIENT)
        found.append((a, b))
        return scaled_mm(a, b, **options)

    monkeypatch.setattr(torch, "_scaled_mm", checked)
    return found


@pytest.mark.parametrize("dtype", [INPUT, GRADIENT])
@pytest.mark.parametrize("size", [1e-20, 1.0, 1e20])
def test_rounding_is_relative_and_uses_the_whole_range(dtype, size) -> None:
    x = size * randn(40, 50)
    found = Rounded.of(x, dtype)
    assert float(found.values.float().abs().max()) == torch.finfo(dtype).max
    # Values far below the largest round in absolute terms.
    large = x.abs() > 1e-2 * x.abs().max()
    assert float((found.float() / x - 1)[large].abs().max()) <= 1.01 * ROUNDING[dtype]
    again = Rounded.of(found.float(), dtype)
    torch.testing.assert_close(again.float(), found.float(), rtol=1e-6, atol=0)


def test_zeros_stay_and_what_is_not_finite_is_seen() -> None:
    assert not Rounded.of(torch.zeros(4, 4), INPUT).float().any()
    for value in (float("inf"), float("nan")):
        x = randn(16, 16)
        x[3, 5] = value
        assert product(Rounded.of(x, INPUT), Rounded.of(randn(16, 16), INPUT), torch.float32).isnan().any()


@pytest.mark.parametrize("shape", [(1, 3, 5), (7, 48, 33), (16, 16, 16), (0, 8, 8), (8, 0, 8)])
@pytest.mark.parametrize("kinds", [(INPUT, INPUT), (GRADIENT, INPUT), (INPUT, GRADIENT)])
def test_a_product_of_any_size_is_that_of_its_factors(calls, shape, kinds) -> None:
    rows, inner, columns = shape
    a, b = Rounded.of(randn(rows, inner), kinds[0]), Rounded.of(randn(columns, inner, seed=1), kinds[1])
    found = product(a, b.mT, torch.float32)
    exact = a.float().double() @ b.float().double().T
    assert found.shape == (rows, columns)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    assert len(calls) == (0 not in shape)


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_multiplies_rounded_factors_forward_and_backward(calls, bias) -> None:
    plain = nn.Linear(48, 32, bias=bias)
    owner = nn.ModuleDict({"q_proj": plain, "other": nn.Linear(4, 4)})
    assert use_float8(owner) == ["q_proj"]
    layer = owner["q_proj"]
    assert isinstance(layer, Float8Linear) and layer.weight is plain.weight and layer.bias is plain.bias
    x, gradient = randn(3, 7, 48).requires_grad_(), randn(3, 7, 32, seed=1)
    out = layer(x)
    out.backward(gradient)
    rows, slopes = x.detach().flatten(0, 1), gradient.flatten(0, 1)
    inputs, weight = Rounded.of(rows, INPUT).float(), Rounded.of(plain.weight, INPUT).float()
    slope = Rounded.of(slopes, GRADIENT).float()
    wanted = inputs @ weight.T + (plain.bias if bias else 0)
    torch.testing.assert_close(out.flatten(0, 1), wanted)
    torch.testing.assert_close(x.grad.flatten(0, 1), slope @ weight)
    torch.testing.assert_close(plain.weight.grad, slope.T @ inputs)
    assert len(calls) == 3
    assert not bias or torch.allclose(plain.bias.grad, slopes.sum(0), atol=1e-5)
    layer.eval()
    assert torch.equal(layer(x), nn.functional.linear(x, plain.weight, plain.bias)) and len(calls) == 3


def test_under_autocast_results_have_its_dtype_and_gradients_the_weights_one() -> None:
    owner = nn.ModuleDict({"q_proj": nn.Linear(32, 32, bias=False)})
    use_float8(owner)
    x = randn(5, 32).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = owner["q_proj"](x)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert x.grad.dtype == owner["q_proj"].weight.grad.dtype == torch.float32


def test_a_model_trains_in_float8_near_its_plain_gradients(calls, tiny_model, random_turn) -> None:
    """Layers of blocks, readings and memory, and the heads; embeddings and norms as they are."""
    model = tiny_model().train()
    rows = model.new_rows()
    for number in range(4):
        rows.begin_sequence([random_turn("past")])
        (rows.add_transcribed if number == 3 else rows.add_spoken)(random_turn(f"t{number}", frames=20))
    batch = model.with_layout(rows.build())
    names = [name for name, _ in model.named_parameters()]

    def gradients() -> tuple[float, dict[str, Tensor]]:
        model.zero_grad()
        output = model(batch=batch, label_smoothing=0.0)
        loss = conversational_loss(output, ConversationTargets.of(batch, 2)).total
        loss.backward()
        found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        return float(loss.detach()), found

    loss, plain = gradients()
    apply_execution(model, ExecutionConfig(float8=True), zero_stage=2)
    assert [name for name, _ in model.named_parameters()] == names
    again, found = gradients()
    kinds = {type(layer) for name, layer in model.named_modules() if name.endswith(float8.LAYERS)}
    assert kinds == {Float8Linear} and plain.keys() == found.keys()
    assert 0 < abs(again - loss) / loss < 0.05
    whole = torch.cat([g.flatten() for g in plain.values()]), torch.cat([g.flatten() for g in found.values()])
    # Measured 0.97: random weights, and no more than 32 factors in a sum.
    assert torch.cosine_similarity(*whole, dim=0) > 0.95
    # Three products of a layer, and of a head for each chunk.
    layers = sum(isinstance(layer, Float8Linear) for layer in model.modules())
    assert len(calls) >= 3 * (layers + 1 + model.config.num_codebooks)
    model.eval()
    calls.clear()
    model(batch=batch, label_smoothing=0.0)
    assert not calls


def test_a_gpu_without_float8_is_refused_in_one_error(monkeypatch, tiny_model) -> None:
    cuda = SimpleNamespace(
        get_device_capability=lambda device: (8, 6), get_device_name=lambda device: "NVIDIA A10G"
    )
    monkeypatch.setattr(torch, "cuda", cuda)
    model = tiny_model()
    message = r"execution.float8 on NVIDIA A10G of compute capability 8.6: expected 8.9 or more"
    with pytest.raises(ValueError, match=message):
        apply_execution(model, ExecutionConfig(float8=True), zero_stage=0, device=torch.device("cuda"))
    assert not any(isinstance(layer, Float8Linear) for layer in model.modules())
    for capability in ((8, 9), (9, 0), (10, 0)):
        cuda.get_device_capability = lambda device, found=capability: found
        require_float8(torch.device("cuda"))
    require_float8(torch.device("cpu"))
