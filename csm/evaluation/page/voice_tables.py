"""The tables of a voice's report: groups of lines, conditions of the main voice, the conversation, times."""

from __future__ import annotations

from csm.evaluation.core.report import Cell, Report, Table
from csm.evaluation.metrics.hearing import HEARD, PERMUTED
from csm.evaluation.page.figures import Column, entries_of, figure, figures, quantile_cells
from csm.evaluation.subjects.voice_changes import AGAINST
from csm.evaluation.subjects.voice_lines import CONVERSATION, MAIN, OTHERS, UNSEEN
from csm.evaluation.subjects.voice_sets import RECORDING, RESYNTHESIS
from csm.evaluation.subjects.voice_speech import CROSS_OFF, GENERATED, IN_CONTEXT, INT8, MEMORY_OFF, SEMANTIC
from csm.report.numbers import counted

COLUMNS = (
    Column("wer", "WER", "lower", 3),
    Column("speaker_similarity", "voice", "higher", 3),
    Column("speaker_nearest_is_own", "nearest", "higher", 2),
    Column("distillmos", "distillMOS", "higher", 2),
    Column("length_median", "length", "nearer 1", 2),
    Column("length_near", "within 20 %", "higher", 2),
    Column("ended_wrong", "cut, ran on", "lower", 2),
)
HEARING = (
    Column(HEARD, "WER of the model", "lower", 3),
    Column(PERMUTED, "against other lines", "lower", 3),
    Column("wer", "WER of the recogniser", "lower", 3),
)
CHANGED = (COLUMNS[0], COLUMNS[1], COLUMNS[3])
SLOPE = Column("character_drift", "slope per turn", "nearer 0", 4)
TIMES = (("first_chunk", "first chunk, s"), ("first_sound", "first sound, s"), ("rtf", "real-time factor"))
BESIDE = (RECORDING, RESYNTHESIS, GENERATED)
TITLES = {
    IN_CONTEXT: "in context",
    MEMORY_OFF: "in context, memory off",
    CROSS_OFF: "cross-attention off",
    SEMANTIC: "semantic codebooks only",
    INT8: "int8 weights",
}
CONVERSATION_TITLE = "A conversation"


def voice_tables(report: Report) -> list[Table]:
    """Makes the tables; those without rows are left out."""
    made = (
        _groups(report),
        _hearing(report),
        _conditions(report),
        _conversation(report),
        _times(report),
    )
    return [table for table in made if table.rows]


def _groups(report: Report) -> Table:
    rows = []
    for group in (MAIN, OTHERS, UNSEEN):
        for condition in BESIDE:
            if row := figures(entries_of(report, group, condition), COLUMNS):
                rows.append((Cell(group), Cell(condition), *row))
    voice = report.details["voice"]
    note = (
        f"Below each figure its 95 % bootstrap interval over conversations. The main voice is "
        f"{voice['main']}; other voices are those with test lines among its "
        f"{counted(voice['voices'] - 1, 'other speaker')}; unseen speakers have a prompt of up to 10 s. "
        f"Resynthesis is from the codes alone, of {voice['codebooks']} codebooks. voice: cosine to the mean "
        f"of the speaker's train recordings (for unseen speakers of the prompt). length: median of the "
        f"generated over the recorded."
    )
    header = ("group", "condition", *(column.head for column in COLUMNS), "N", "failed")
    return Table("The voice", header, rows, note, 2)


def _hearing(report: Report) -> Table:
    rows = []
    for group in (MAIN, OTHERS, UNSEEN):
        entries = entries_of(report, group, RECORDING)
        if HEARD in entries and (row := figures(entries, HEARING)):
            rows.append((Cell(group), *row))
    note = (
        "Word error rate of the model's own transcription of the recordings, each in a conversation of its "
        "own; of the same transcripts against the texts of other lines, which is what a model scores that "
        "writes without listening; and of the recogniser on the same recordings. Writing nothing scores 1."
    )
    header = ("group", *(column.head for column in HEARING), "N", "failed")
    return Table("Transcription by the model", header, rows, note, 1)


def _conditions(report: Report) -> Table:
    rows = []
    for condition in (GENERATED, *AGAINST):
        entries = entries_of(report, MAIN, condition)
        row = figures(entries, (*CHANGED, COLUMNS[-1]))
        if not row:
            continue
        cells = []
        for column, shown in zip(CHANGED, row, strict=False):
            cells += [shown, figure(column, entries.get(f"{column.name}_change"), signed=True)]
        against = AGAINST.get(condition, "-")
        named = Cell(TITLES.get(condition, condition)), Cell(TITLES.get(against, against))
        rows.append((*named, *cells, *row[len(CHANGED) :]))
    voice = report.details["voice"]
    note = report.details["ablations"]
    if voice["lines_in_context"]:
        note += (
            f" In context, a line is spoken after the turns that precede it in its conversation. What fits "
            f"into {voice['max_context']} rows is attended to exactly and only older turns are in the "
            f"memory: in {voice['lines_with_memory']} of {voice['lines_in_context']} lines it held any."
        )
    heads = [name for column in CHANGED for name in (column.head, "change")]
    header = ("condition", "against", *heads, COLUMNS[-1].head, "N", "failed")
    title = "Other conditions of the main voice's lines"
    return Table(title, header, rows if len(rows) > 1 else [], note.strip(), 2)


def _conversation(report: Report) -> Table:
    rows = []
    for condition in BESIDE:
        entries = entries_of(report, CONVERSATION, condition)
        if row := figures(entries, COLUMNS):
            slope = entries.get(SLOPE.name)
            turns = "-" if slope is None else str(slope.n_ok)
            rows.append((Cell(condition), figure(SLOPE, slope, signed=True), Cell(turns), *row))
    note = (
        f"The test conversation with most turns in a row between the talker's voices; its first turns, "
        f"spoken in one session. Slope: of the similarity of {report.details['voice']['main']} over that "
        f"many turns. One conversation does not show how conversations differ: the other figures have no "
        f"interval."
    )
    header = ("condition", SLOPE.head, "turns", *(column.head for column in COLUMNS), "N", "failed")
    return Table(CONVERSATION_TITLE, header, rows, note, 1)


def _times(report: Report) -> Table:
    rows = []
    evaluator = ""
    for condition in (GENERATED, INT8):
        entries = entries_of(report, MAIN, condition)
        for name, title in TIMES:
            if (entry := entries.get(name)) is None:
                continue
            evaluator = entry.evaluator
            counts = Cell(str(entry.n_ok)), Cell(str(entry.n_failed))
            named = Cell(TITLES.get(condition, condition)), Cell(title)
            rows.append((*named, *quantile_cells(entry), *counts))
    note = (
        f"Lines of the main voice, {evaluator}. First sound: the chunk with the first sample above -40 dB "
        f"of the line's peak has come; first chunk: it may be silent."
    )
    return Table("Latency", ("condition", "time", "p50", "p90", "p99", "N", "failed"), rows, note, 2)
