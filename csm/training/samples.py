"""What a training sounds like so far: clips of every validation, and a page that plays them side by side.

OUTPUT/samples holds original/, a folder per validation (step_00000250/) and index.html. Each appears whole or
not at all. A folder that is there is left alone: a resumed run would write the same into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import quote, unquote

from torch import Tensor

from csm.data.audio import write_audio
from csm.evaluation.charts import Series, line_chart
from csm.system.files import new_folder, write_atomically
from csm.training.metrics import read_metrics

# By name: waveform [channels, samples], full scale = 1, and Hz.
Clips = dict[str, tuple[Tensor, int]]

STYLE = """
:root{color-scheme:light dark;--ink:#1c1e21;--soft:#62676e;--rule:#dcdcd8;--ground:#f7f7f5;--tone:#0f8a7e}
@media (prefers-color-scheme:dark){:root{--ink:#e6e6e3;--soft:#9aa0a8;--rule:#30343a;--ground:#15171a;
--tone:#4cc3b5}}
body{margin:32px;font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--ground)}
h1{font-size:24px}h2{font-size:14px;margin:0 0 4px}.charts{display:flex;flex-wrap:wrap;gap:24px}
.charts div{width:330px}.scroll{overflow-x:auto;margin-top:28px}table{border-collapse:collapse}
th,td{padding:7px 10px;text-align:left;border-top:1px solid var(--rule);white-space:nowrap;font-size:13px}
th:first-child{position:sticky;left:0;background:var(--ground)}audio{width:230px;height:34px;display:block}
.chart{width:100%;height:auto}.grid{stroke:var(--rule)}.axis{stroke:var(--soft)}
.tick{fill:var(--soft);font-size:10.5px}.line{fill:none;stroke:var(--tone);stroke-width:1.7}
.dot{fill:var(--tone)}
"""


@runtime_checkable
class Audible(Protocol):
    """A task whose progress can be listened to."""

    def originals(self) -> Clips:
        """Returns the recordings that `samples` are made from; called on rank 0."""
        ...

    def samples(self, step: int) -> Clips:
        """Returns clips under the names of `originals`, the same ones after every validation.

        Called like the task's `validate`, right after it: without gradients, modules in eval mode, and under
        ZeRO-3 on every rank.
        """
        ...


def write_samples(output: Path, step: int, clips: Clips, originals: Clips) -> None:
    """Writes the clips of one validation and the page again. Rank 0 calls this.

    Args:
        output: The run's folder.
        step: After which it was.
        clips, originals: By name; any text will do.

    Raises:
        OSError: The disk takes no more.
        ValueError: A clip is empty or not finite; nothing of this step is written.
    """
    folder = output / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    _write_folder(folder / "original", originals)
    _write_folder(folder / f"step_{step:08d}", clips)
    validations = [line for line in read_metrics(output / "metrics.jsonl") if line["split"] == "validation"]
    write_atomically(folder / "index.html", page(folder, output.name, validations))


def page(folder: Path, title: str, validations: Sequence[dict[str, Any]]) -> str:
    """The page: a chart per validation metric, then a row per clip and a column per step.

    Args:
        folder: Of the samples; the page's links are relative to it.
        title: Of the run.
        validations: Lines of metrics.jsonl.
    """
    columns = [folder / "original", *sorted(folder.glob("step_" + "[0-9]" * 8))]
    heads = "".join(f"<th>{escape(_heading(column.name))}</th>" for column in columns)
    rows = [
        f"<tr><th>{escape(unquote(path.stem))}</th>"
        + "".join(f"<td>{_player(column, path.name)}</td>" for column in columns)
        + "</tr>"
        for path in sorted((folder / "original").glob("*.flac"))
    ]
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{escape(title)}: samples</title>\n<style>{STYLE}</style>",
            f"<h1>{escape(title)}</h1>",
            f'<div class="charts">{_charts(validations)}</div>',
            f'<div class="scroll"><table>\n<tr><th></th>{heads}</tr>',
            *rows,
            "</table></div>\n</html>\n",
        ]
    )


def _write_folder(folder: Path, clips: Clips) -> None:
    """All of the clips or none, unless they are there."""
    if folder.is_dir():
        return
    with new_folder(folder) as partial:
        for name, (waveform, sample_rate) in clips.items():
            # Quoted: a name may hold a slash, and two names must not become one file.
            write_audio(partial / f"{quote(name, safe='')}.flac", waveform, sample_rate)


def _heading(name: str) -> str:
    return name if name == "original" else f"step {int(name.removeprefix('step_')):,}"


def _player(column: Path, name: str) -> str:
    if not (column / name).is_file():
        return ""
    # preload: a long run has hundreds of them, and a browser would fetch every one.
    return f'<audio controls preload="none" src="{quote(f"{column.name}/{name}")}"></audio>'


def _charts(validations: Sequence[dict[str, Any]]) -> str:
    names = dict.fromkeys(name for line in validations for name in line if name not in ("step", "split"))
    charts = []
    for name in names:
        points = [(line["step"], line[name]) for line in validations if line.get(name) is not None]
        series = Series(label=name, points=points, style="loss", dots=True)
        chart = line_chart([series], title=f"validation {name}", x_title="step", whole_x=True)
        charts.append(f"<div><h2>{escape(name)}</h2>{chart}</div>")
    return "".join(charts)
