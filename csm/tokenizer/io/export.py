"""Exports encoder and decoder as files that run without this package: torch.export and ONNX."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from csm import config as config_files
from csm.system.extras import missing_package
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.io.export_programs import DecoderProgram, EncoderProgram

BATCH, LONGEST = torch.export.Dim("batch"), 1 << 30


def export_tokenizer(
    tokenizer: ConversationalRVQ, folder: Path | str, *, num_codebooks: int | None = None, onnx: bool = False
) -> list[Path]:
    """Writes encoder.pt2, decoder.pt2 and config.json; with `onnx` also encoder.onnx and decoder.onnx.

    Encoder: "audio" float32 [B, 1, S] at the config's sample_rate -> "codes" int64 [B, K, T], any B and S.
    Decoder: "codes" [B, K, T] -> "audio" [B, 1, S], or, where the config recovers phases, "magnitude"
    [B, T * hops_per_frame, bins], the input of csm/tokenizer/phase_recovery.py. It has no speaker and no
    emotion input. Neither program checks its input.

    Args:
        tokenizer: Tokenizer in eval mode.
        folder: Destination; made if it is missing.
        num_codebooks: K, a prefix of the codebooks. None: all.
        onnx: Whether to write ONNX too; needs the packages onnx and onnxscript (extra `[export]`).

    Returns:
        The files that were written.

    Raises:
        ValueError: num_codebooks is out of range, the tokenizer has a vocoder, or a package is missing.
    """
    config, folder = tokenizer.config, Path(folder)
    if config.vocoder:
        raise ValueError(
            "tokenizer.vocoder: its pitch follows a path and its vocoder its own output, one step after the "
            "other, which a program of dynamic length cannot hold; export a tokenizer without a vocoder"
        )
    count = config.n_codebooks if num_codebooks is None else num_codebooks
    if not 1 <= count <= config.n_codebooks:
        raise ValueError(f"num_codebooks is {num_codebooks}: expected 1 to {config.n_codebooks}")
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "config.json"]
    config_files.save(config, written[0])
    written += export_encoder(tokenizer, folder, count, onnx=onnx)
    return written + export_decoder(tokenizer, folder, count, onnx=onnx)


def export_encoder(
    tokenizer: ConversationalRVQ, folder: Path, num_codebooks: int, *, onnx: bool
) -> list[Path]:
    """Writes encoder.pt2, with `onnx` also encoder.onnx; see `export_tokenizer`."""
    samples = _traced_frames(tokenizer) * tokenizer.config.samples_per_frame - 1
    audio = torch.zeros(2, 1, samples, device=tokenizer.quantizer.semantic.codebooks.device)
    program = partial(EncoderProgram, tokenizer, num_codebooks)
    return _export(program, audio, "samples", folder / "encoder", ("audio", "codes"), onnx)


def export_decoder(
    tokenizer: ConversationalRVQ, folder: Path, num_codebooks: int, *, onnx: bool
) -> list[Path]:
    """Writes decoder.pt2, with `onnx` also decoder.onnx; see `export_tokenizer`."""
    shape = (2, num_codebooks, _traced_frames(tokenizer))
    codes = torch.zeros(shape, dtype=torch.int64, device=tokenizer.quantizer.semantic.codebooks.device)
    names = ("codes", "magnitude" if tokenizer.config.recover_phase else "audio")
    program = partial(DecoderProgram, tokenizer, num_codebooks)
    return _export(program, codes, "frames", folder / "decoder", names, onnx)


def _traced_frames(tokenizer: ConversationalRVQ) -> int:
    """Frames of the traced example: tracing specialises a dimension of 1, or one attention window."""
    return 2 * tokenizer.config.attention_frames + 3


@torch.no_grad()
def _export(
    program: Callable[..., nn.Module],
    example: Tensor,
    length: str,
    path: Path,
    names: tuple[str, str],
    onnx: bool,
) -> list[Path]:
    """Traces a program of (input, output) `names` with any batch and length; writes it in each format."""
    shapes = ({0: BATCH, 2: torch.export.Dim(length, max=LONGEST)},)
    written = [path.with_suffix(".pt2")]
    torch.export.save(_traced(program(fourier_matrix=False).eval(), example, shapes), written[0])
    if onnx:
        written.append(path.with_suffix(".onnx"))
        _save_onnx(_traced(program(fourier_matrix=True).eval(), example, shapes), written[1], *names)
    return written


def _traced(module: nn.Module, example: Tensor, shapes: tuple[dict, ...]) -> torch.export.ExportedProgram:
    exported = torch.export.export(
        module, (example,), dynamic_shapes=shapes, prefer_deferred_runtime_asserts_over_guards=True
    )
    # Tracing asserts that sizes differ from 1 where it chose strides. The operations do not depend on it: a
    # single frame works as well (tests/tokenizer/io/test_export.py).
    for node in list(exported.graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            exported.graph.erase_node(node)
    exported.graph.eliminate_dead_code()
    exported.graph_module.recompile()
    return exported


def _save_onnx(exported: torch.export.ExportedProgram, path: Path, given: str, returned: str) -> None:
    try:
        program = torch.onnx.export(
            exported, input_names=[given], output_names=[returned], dynamo=True, verbose=False
        )
    except ImportError as error:
        raise ValueError(f"{missing_package('onnxscript', 'ONNX')} ({error})") from error
    assert program is not None
    program.save(path)
