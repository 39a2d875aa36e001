"""Exports encoder and decoder as files that run without this package: torch.export and ONNX."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from csm import config as config_files
from csm.system.extras import missing_package
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.io.export_programs import DecoderProgram, EncoderProgram

BATCH, LONGEST = torch.export.Dim("batch"), 1 << 30


@torch.no_grad()
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
        ValueError: num_codebooks is out of range, or a package is missing.
    """
    config, folder = tokenizer.config, Path(folder)
    count = config.n_codebooks if num_codebooks is None else num_codebooks
    if not 1 <= count <= config.n_codebooks:
        raise ValueError(f"num_codebooks is {num_codebooks}: expected 1 to {config.n_codebooks}")
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "config.json"]
    config_files.save(config, written[0])
    device = tokenizer.quantizer.semantic.codebooks.device
    # Two items of more than two attention windows: tracing specialises a dimension of 1, or one window.
    frames = 2 * config.attention_frames + 3
    audio = torch.zeros(2, 1, frames * config.samples_per_frame - 1, device=device)
    codes = torch.zeros(2, count, frames, dtype=torch.int64, device=device)
    for name, program, example, given, returned in (
        ("encoder", EncoderProgram, audio, "audio", "codes"),
        ("decoder", DecoderProgram, codes, "codes", "magnitude" if config.recover_phase else "audio"),
    ):
        length = torch.export.Dim("samples" if given == "audio" else "frames", max=LONGEST)
        shapes = ({0: BATCH, 2: length},)
        for suffix in (".pt2", ".onnx") if onnx else (".pt2",):
            module = program(tokenizer, count, fourier_matrix=suffix == ".onnx").eval()
            exported = _traced(module, example, shapes)
            written.append(folder / f"{name}{suffix}")
            if suffix == ".pt2":
                torch.export.save(exported, written[-1])
            else:
                _save_onnx(exported, written[-1], given, returned)
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
