"""On CUDA two trainings have the same bits where deterministic algorithms are asked for."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from csm.losses import ConversationTargets, LossConfig, conversational_loss
from csm.model import CSMModel
from csm.network import cross_entropy
from tests.nondeterministic import RefusesNondeterministic


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_and_gradients_have_the_same_bits_twice(tiny_model, random_turn, monkeypatch, dtype):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    model = tiny_model().cuda().train()
    rows = model.new_rows()
    for number in range(3):
        rows.begin_sequence()
        rows.add_spoken(random_turn(f"a{number}", frames=9 + number))
        rows.add_transcribed(random_turn(f"b{number}", speaker=1))
    batch = rows.build().to(torch.device("cuda"))
    torch.use_deterministic_algorithms(True)
    results = []
    try:
        for _ in range(2):
            model.zero_grad()
            with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
                targets = ConversationTargets.of(batch, model.config.semantic_codebooks, None)
                outputs = model(batch=batch, label_smoothing=0.0)
                loss = conversational_loss(outputs, targets, LossConfig()).total
            loss.backward()
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            results.append([loss.detach(), *(gradient.clone() for gradient in gradients)])
    finally:
        torch.use_deterministic_algorithms(False)
    assert len(results[0]) > 10
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("changes", [{}, {"depth_inputs": "sum", "latent_dim": 12}], ids=str)
def test_the_forward_pass_asks_cuda_for_nothing_that_it_refuses(
    tiny_model, random_turn, monkeypatch, changes
) -> None:
    """On tensors without values that claim to be on CUDA."""
    monkeypatch.setattr(cross_entropy, "HAS_LIGER", False)  # its kernels need values
    model = tiny_model(**changes)
    rows = model.new_rows()
    for number in range(2):
        rows.begin_sequence([random_turn(f"past{number}")])
        rows.add_spoken(random_turn(f"a{number}", frames=9 + number))
        rows.add_transcribed(random_turn(f"b{number}", speaker=1))
    batch = model.with_layout(rows.build())
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("cuda"):
            model = CSMModel(model.config).train()
        if changes:
            model.set_code_vectors(torch.randn(5, 24, 12))
        batch = batch.to(torch.device("cuda"))
        with RefusesNondeterministic():
            targets = ConversationTargets.of(batch, model.config.semantic_codebooks, model.code_vectors)
            outputs = model(batch=batch, label_smoothing=0.1)
            loss = conversational_loss(outputs, targets, LossConfig()).total
    assert loss.is_cuda and loss.requires_grad
