"""Damages files that the program reads; what comes of it is a line that names the file, or nothing at all.

    python tests/fuzz.py --mutations 2000

Each file of each kind is mutated so often: bits flipped, cut, lengthened, values of its JSON exchanged or
nested deep, replaced by a pickle that would touch a file, by a folder or a link. In every second trial the
SHA-256 that names the file is put right, as a tool that edits files would.
Then the reader must raise a `ValueError` or `OSError`, fall back to an older checkpoint, or return what it
returned before; after a hash was put right, other values may come back too, but never anything else.
"""

from __future__ import annotations

import argparse
import json
import logging
import pickle
import random
import re
import shutil
import sys
import tempfile
import unicodedata
from collections.abc import Callable
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import soundfile
import torch
from torch import nn

from csm.audio.files import write_audio
from csm.config import load, save
from csm.data.code_companions import (
    read_alignment,
    read_code_vectors,
    write_alignment,
    write_code_vectors,
)
from csm.data.code_shards import EncodedTurn, read_code_shards, write_code_shards
from csm.data.corpora.recordings import prepare_recordings
from csm.data.corpora.source_files import find_files
from csm.data.manifest import Conversation, Turn, read_corpus, write_manifest
from csm.generation.sampling import SamplingConfig
from csm.generation.voices import Voice, read_voices, write_voices
from csm.network.io.weight_files import Weight, stored_weights, write_weights
from csm.system.digests import DIGESTS_NAME, record_digests
from csm.system.files import file_sha256
from csm.training.checkpoint import save_checkpoint
from csm.training.checkpoint_reader import newest_state
from csm.training.distributed import DistributedContext
from csm.training.metrics import MetricsFile, read_metrics
from csm.training.options import TrainingConfig
from csm.training.plain_engine import PlainEngine
from csm.training.run_folder import is_complete, require_same_run, write_complete, write_run

ALONE = DistributedContext(rank=0, size=1, local_size=1, device=torch.device("cpu"))
CONFIG = TrainingConfig(micro_batches=1, ema_decay=0.9)


class Kind(NamedTuple):
    """A kind of folder, the files in it that are damaged, and its reader."""

    write: Callable[[Path], None]
    files: tuple[str, ...]
    read: Callable[[Path], Any]


class Poison:
    """Touches a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


def engines(seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    return {"net": PlainEngine("net", nn.Linear(3, 4), CONFIG, ALONE)}


def write_checkpoints(folder: Path) -> None:
    made = engines(0)
    for step in (1, 2):
        save_checkpoint(folder, step, made, ALONE, keep=3)
        for fragment in made["net"].fragments():
            fragment.slots["weight"].add_(1.0)


def read_checkpoints(folder: Path) -> Any:
    made = engines(1)
    found = newest_state(folder, made, ALONE)
    assert found is not None
    found[1].load(made)
    weights = [fragment.slots["weight"].tolist() for fragment in made["net"].fragments()]
    # An older one is a right answer; its weights must then be its own.
    return "old" if found[0].name == "step_00000001" else "new", found[1].step, weights


def write_codes(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 9, (2, 4), generator=generator)
    turns = [
        EncodedTurn(name, codes + i, torch.full((4, 3), 0.5), torch.ones(2)) for i, name in enumerate("abc")
    ]
    write_code_shards(folder, turns, {"corpus": "c"})
    write_alignment(folder, {name: torch.arange(3.0) for name in "abc"}.items(), "bytes")
    write_code_vectors(folder, torch.rand(2, 9, 3, generator=generator))


def read_codes(folder: Path) -> Any:
    shards = {name: [part.tolist() for part in turn[1:4]] for name, turn in read_code_shards(folder).items()}
    ends, vectors = read_alignment(folder, "bytes"), read_code_vectors(folder)
    assert ends is not None and vectors is not None
    return shards, {name: value.tolist() for name, value in ends.items()}, vectors.tolist()


def write_corpus(folder: Path) -> None:
    kept = {"speaker": "A", "text": "abc", "audio": "audio/a.wav", "end": 1.5}
    turns = tuple(Turn(id=f"c_{i}", conversation="c", index=i, **kept) for i in range(3))
    write_manifest(folder / "manifest.jsonl", [Conversation(id="c", split="train", turns=turns)])
    (folder / "corpus.json").write_text('{"name": "fuzz", "hours": 1.5}')
    record_digests(folder, ["manifest.jsonl", "corpus.json"])


def write_voice(folder: Path) -> None:
    write_voices(folder, {name: Voice(name, i, torch.ones(1, 3)) for i, name in enumerate("AB")})
    save(SamplingConfig(), folder / "sampling.json")
    tensor = torch.arange(12.0).view(3, 4)
    write_weights(folder, {"w": Weight((3, 4), torch.float32, lambda: tensor)}, 10**6)
    record_digests(folder, ["voices.json", "model.safetensors"])


def read_voice(folder: Path) -> Any:
    voices = {name: (v.number, v.speaker.tolist()) for name, v in read_voices(folder).items()}
    weights = {name: weight.read().tolist() for name, weight in stored_weights(folder).items()}
    load(SamplingConfig, folder / "sampling.json")  # edited by people: other values are no damage
    return voices, weights


def write_run_folder(folder: Path) -> None:
    (folder / "weights").write_bytes(b"w")
    write_run(folder, {"a": {"b": 1}}, CONFIG, ALONE, 0, {}, {"codes": "x"})
    write_complete(folder, CONFIG.steps, [folder / "weights"])
    MetricsFile(folder, after_step=0).write(1, "train", {"loss": 1.0})


def read_run_folder(folder: Path) -> Any:
    require_same_run(folder, {"a": {"b": 1}}, CONFIG, {"codes": "x"})
    is_complete(folder, CONFIG.steps)
    MetricsFile(folder, after_step=5)
    read_metrics(folder / "metrics.jsonl")


def lines(*entries: Any) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


SPOKEN = {"start": 0.1, "end": 0.4, "text": "well hello", "speaker": "ann"}
TIMED = {**SPOKEN, "words": [{"word": "well", "start": 0.1, "end": 0.2}]}
CUE = "1\n00:00:00,100 --> 00:00:00,400\nAnn: [sighs] hello\n\n"
RECORDING = {"id": "a", "sources": [{"type": "file", "channels": [0], "source": "a.wav"}]}
SUPERVISION = {"id": "s", "recording_id": "a", "start": 0.1, "duration": 0.3, "channel": 0, "custom": {}}
SUPERVISION |= {"text": "hello", "speaker": "ann", "alignment": {"word": [["hello", 0.1, 0.2, None]]}}
ROW = {"conversation_id": "c", "turn_id": 0, "speaker": "ann", "text": "hello", "path": "a.wav", "channel": 0}
MESSAGE = {"role": "0", "content": [{"type": "text", "text": "hi"}, {"type": "audio", "url": "a.wav"}]}
INTERVALS = '"IntervalTier"\n"Ann"\n0\n1\n1\n0.1\n0.4\n"hello"\n'
SWITCHBOARD = "sw2001A-ms98-a-0001 0.1 0.4 hello\n"
BACKCHANNEL = "backchannel,backchannel_speaker,backchannel_start,backchannel_stop"
CANDOR = f"turn_id,speaker,start,stop,utterance,{BACKCHANNEL}\n"
CANDOR += '0,p1,0.1,0.9,"Well, you know.",yeah,p2,0.4,0.6\n1,p2,0.9,1.0,I do.,,,,\n'
COMMON_VOICE = "client_id\tpath\tsentence\tup_votes\n" + "x1\ta.wav\tSecond.\t2\n"


def parquet_rows() -> bytes:
    """Two turns as `datasets` writes them."""
    from pyarrow import BufferOutputStream, Table, parquet

    heard, sound = BytesIO(), [0.1, -0.1] * 4_000
    soundfile.write(heard, sound, 8_000, format="WAV")
    audio = {"bytes": heard.getvalue(), "path": "a.wav"}
    row = {"conversation_id": "c", "text": "hello", "speaker_id": 7, "audio": audio, "overlap": False}
    rows = [{**row, "turn_id": number, "split": "train"} for number in range(2)]
    written = BufferOutputStream()
    parquet.write_table(Table.from_pylist(rows), written)
    return bytes(written.getvalue())


# Layout -> file -> content, or what makes it, beside a recording of one second.
TREES: dict[str, dict[str, str | Callable[[], bytes]]] = {
    "sidecars": {"a.json": json.dumps({"turns": [{**SPOKEN, "channel": 0, "emotion": "glad"}]})},
    "whisper": {"a.json": json.dumps({"segments": [TIMED, {**TIMED, "channel": 0}]})},
    "moshi": {
        "a.json": json.dumps({"alignments": [["hi", [0.1, 0.4], "SPEAKER_MAIN"]], "csm_speakers": {}}),
        "data.jsonl": lines({"path": "a.wav", "duration": 1.0}),
    },
    "lhotse": {"recordings.jsonl": lines(RECORDING), "supervisions.jsonl": lines(SUPERVISION, SUPERVISION)},
    "messages": {"m.jsonl": lines({"messages": [MESSAGE, MESSAGE]}, {"messages": []})},
    "nemo": {"m.json": lines({"audio_filepath": "a.wav", "text": "hi", "offset": 0.1, "duration": 0.3})},
    "turns": {"t.jsonl": lines(ROW, ROW), "t.csv": f'{",".join(ROW)}\nc,1,ann,"hello",a.wav,0\n' * 2},
    "subtitles": {"a.srt": CUE * 3},
    "rttm": {
        "a.rttm": "SPEAKER a 1 0.10 0.30 <NA> <NA> ann <NA> <NA>\n" * 2,
        "a.ctm": "a 1 0.10 0.3 hello\n",
    },
    "textgrid": {"a.TextGrid": f'"ooTextFile"\n"TextGrid"\n0\n1\n<exists>\n1\n{INTERVALS}'},
    "kaldi": {"wav.scp": "r a.wav\n", "text": "u hi\n", "utt2spk": "u ann\n", "segments": "u r 0.1 0.4\n"},
    "ami": {
        "w/ES1.A.words.xml": '<r><w starttime="0.1" endtime="0.4">hello</w></r>',
        "meetings.xml": '<r><meeting observation="ES1"><speaker nxt_agent="A" channel="0"/></meeting></r>',
    },
    "switchboard": {"sw2001A-ms98-a-trans.text": SWITCHBOARD, "sw2001A-ms98-a-word.text": SWITCHBOARD},
    "ljspeech": {"metadata.csv": 'LJ1-1|In 1456,|In fourteen fifty-six,\nLJ1-1|"quoted|\n'},
    "common_voice": {"validated.tsv": COMMON_VOICE, "dev.tsv": COMMON_VOICE},
    "dailytalk": {
        "data/0/0_1_d0.txt": "What are you doing?\n",
        "metadata.json": json.dumps({"0": {"0": {"emotion": "happiness"}, "1": {"emotion": "no emotion"}}}),
    },
    "fisher": {
        "trans/fe_03_00001.txt": "# fe_03_00001.sph\n\n0.10 0.40 A: hello [laughter] (( there ))\n"
        "0.5 0.9 A: hi\n",
        "doc/fe_03_p1_calldata.tbl": "CALL_ID,APIN,ASX.DL,BPIN\n00001,2602,f.a,1790\n",
    },
    "candor": {
        "0a1b/transcription/channel_map.json": json.dumps({"L": "p1", "R": "p2"}),
        "0a1b/transcription/transcript_backbiter.csv": CANDOR,
    },
    "expresso": {"read_transcriptions.txt": "ex01_happy_00001\tWhat a day!\nex01_sad_00001\tGone.\n"},
}
if find_spec("pyarrow") is not None:
    TREES["parquet"] = {"test-00000-of-00001.parquet": parquet_rows}
NAMES = {
    "ami": "ES1.Headset-0.wav",
    "switchboard": "sw02001.wav",
    "ljspeech": "wavs/LJ1-1.wav",
    "common_voice": "clips/a.wav",
    "dailytalk": "data/0/0_1_d0.wav",
    "fisher": "fe_03_00001.wav",
    "candor": "0a1b/processed/0a1b.wav",
    "expresso": "audio_48khz/read/ex01/happy/base/ex01_happy_00001.wav",
}
CHANNELS = {"candor": 2}
# What names a recording anywhere in the folder, where two of one name are refused.
NUMBERS = {"fisher": "00001"}


def layout_kind(name: str) -> Kind:
    """Two source folders, of which one is damaged: a corpus is made of the other, and its totals add up."""

    def write(folder: Path) -> None:
        for copy, part in enumerate((folder / "damaged", folder / "whole", folder), 1):

            def own(text: str, number: str = f"{copy:05d}") -> str:
                return text.replace(NUMBERS.get(name, number), number)

            samples = 0.1 * (-1.0) ** torch.arange(8_000)
            audio = part / own(NAMES.get(name, "a.wav"))
            audio.parent.mkdir(parents=True, exist_ok=True)
            write_audio(audio, samples.expand(CHANNELS.get(name, 1), -1), 8_000)
            for path, content in TREES[name].items() if part != folder else ():
                file = part / own(path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(own(content).encode() if isinstance(content, str) else content())

    def read(folder: Path) -> tuple[str]:
        with tempfile.TemporaryDirectory() as output:
            try:
                corpus = prepare_recordings(Path(output) / "corpus", source=folder, layout=name)
            except (ValueError, OSError) as error:
                raise AssertionError(f"one file ended the preparation: {error}") from error
            info, texts = corpus.info, [turn.text for turn in corpus.turns()]
            damaged = [text for text in texts if not text.strip() or text == "None"]
            damaged += [text for text in texts if any(unicodedata.category(c) == "Cc" for c in text)]
            assert not damaged, f"these are no texts: {damaged}"
        for unit in ("turn", "file"):
            parts = info[f"{unit}s_used"] + info[f"{unit}s_rejected"]
            assert info[f"{unit}s_in"] == parts, f"{unit}s do not add up"
        assert info["files_in"] == len(find_files(folder)), "a file is not counted"
        return ("prepared",)

    return Kind(write, tuple(f"damaged/{path}" for path in TREES[name]), read)


STEP = "step_00000002/"
KINDS = {
    "checkpoint": Kind(
        write_checkpoints,
        tuple(STEP + name for name in ("rank_00000.safetensors", "rank_00000.json", "MANIFEST.json")),
        read_checkpoints,
    ),
    "codes": Kind(
        write_codes,
        ("codes_0000.safetensors", "index.json", "alignment.safetensors", "code_vectors.safetensors"),
        read_codes,
    ),
    "corpus": Kind(write_corpus, ("manifest.jsonl", "corpus.json"), lambda folder: read_corpus(folder)),
    "voice": Kind(write_voice, ("voices.json", "sampling.json", "model.safetensors"), read_voice),
    "run": Kind(write_run_folder, ("run.json", "complete.json", "metrics.jsonl"), read_run_folder),
    **{f"layout {name}": layout_kind(name) for name in TREES},
}
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**70,
    1.5,
    float("nan"),
    "",
    "../../x",
    "/etc/passwd",
    [],
    {},
    [[1]],
)


def exchanged(value: Any, draw: random.Random) -> Any:
    """Returns JSON with one value anywhere in it exchanged or taken out."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(sorted(value))
        rest = {k: v for k, v in value.items() if k != key}
        what = draw.random()
        return rest if what < 0.1 else {**value, key: exchanged(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.9:
        place = draw.randrange(len(value))
        return [*value[:place], exchanged(value[place], draw), *value[place + 1 :]]
    return draw.choice(ODD)


def mutated_rows(data: bytes, draw: random.Random) -> bytes:
    """Returns a parquet file with one value exchanged in a row, or in all where its kind would change."""
    from pyarrow import BufferOutputStream, BufferReader, Table, parquet

    rows = parquet.read_table(BufferReader(data)).to_pylist()
    key, place = draw.choice(sorted(rows[0])), draw.randrange(len(rows))
    value = exchanged(rows[place][key], draw)
    for chosen in (rows[place : place + 1], rows):
        for row in chosen:
            row[key] = value
        try:
            written = BufferOutputStream()
            parquet.write_table(Table.from_pylist(rows), written)
            return bytes(written.getvalue())
        except (ValueError, TypeError, OverflowError, NotImplementedError):
            pass  # of another kind than the rest of its column, or of none that parquet has
    return data[:-1]


FIELDS = (
    "",
    "nan",
    "-1",
    "1e999",
    "../../x",
    "/etc/passwd",
    "\0",
    "\ud800",
    '"',
    "\t",
    "|",
    "x" * 5000,
)


def mutated_table(data: bytes, draw: random.Random) -> bytes:
    """Returns lines of which one is taken out or repeated, or has another field."""
    lines = data.decode().splitlines(keepends=True)
    place, way = draw.randrange(len(lines)), draw.random()
    if way < 0.2:
        del lines[place]
    elif way < 0.4:
        lines.insert(draw.randrange(len(lines)), lines[place])
    else:
        parts = re.split(r"([\t|, :<>=])", lines[place])
        parts[draw.randrange(len(parts))] = draw.choice(FIELDS)
        lines[place] = "".join(parts)
    return "".join(lines).encode("utf-8", "surrogatepass")


def mutated_json(data: bytes, draw: random.Random) -> bytes:
    """Returns a JSON file, or a safetensors file's header, with one value exchanged; tables likewise."""
    if data[:4] == b"PAR1":
        return mutated_rows(data, draw)
    if data[:1] not in b"{[" and data[8:9] != b"{" and data.isascii() and data:
        return mutated_table(data, draw)
    try:
        if data[:1] in b"{[":
            lines = data.splitlines()
            if len(lines) > 1 and lines[1][:1] == b"{":
                return json.dumps(exchanged(json.loads(lines[0]), draw)).encode() + b"\n"
            return json.dumps(exchanged(json.loads(data), draw)).encode()
        length = int.from_bytes(data[:8], "little")
        header = json.dumps(exchanged(json.loads(data[8 : 8 + length]), draw)).encode()
        return len(header).to_bytes(8, "little") + header + data[8 + length :]
    except ValueError:
        return data + b"\n{"


def damage(path: Path, draw: random.Random, canary: Path) -> None:
    """Mutates a file in one of many ways."""
    data = path.read_bytes()
    way = draw.randrange(12)
    if way < 3:
        flipped = bytearray(data)
        for _ in range(draw.choice((1, 1, 8))):
            flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
    elif way < 7:
        path.write_bytes(mutated_json(data, draw))
    elif way == 7:
        path.write_bytes(data[: draw.randrange(len(data))])
    elif way == 8:
        path.write_bytes(draw.choice((data + b"\0" * 9, data[:8] + data, b"", pickle.dumps(Poison(canary)))))
    elif way == 9:
        deep = draw.choice((b"[" * 10**5, b'{"a":' * 10**5, b'{"files":' + b"[" * 10**5))
        path.write_bytes(draw.choice((deep, len(deep).to_bytes(8, "little") + deep)))
    elif way == 10:
        path.write_bytes(draw.choice((2**62, 10**8)).to_bytes(8, "little") + data[8:])
    else:
        other = path.with_name("elsewhere")
        path.rename(other)
        if draw.random() < 0.5:
            path.mkdir()
        else:
            path.symlink_to(draw.choice((other, Path("/etc/hostname"), path)))


def put_right(folder: Path, path: Path) -> None:
    """Enters the SHA-256 of a damaged file where its true one stood."""
    if not path.is_file():
        return
    manifest = path.parent / ("MANIFEST.json" if path.parent != folder else DIGESTS_NAME)
    if manifest == path or not manifest.is_file():
        return
    names = json.loads(manifest.read_text())
    names["files"][path.name] = {"size": path.stat().st_size, "sha256": file_sha256(path)}
    manifest.write_text(json.dumps(names))


def trial(kind: Kind, folder: Path, draw: random.Random, canary: Path, expected: Any) -> str | None:
    """Damages one file of a folder and reads it; returns what went wrong, or None."""
    path = folder / draw.choice(kind.files)
    damage(path, draw, canary)
    honest = draw.random() < 0.5
    if not honest:
        put_right(folder, path)
    try:
        found = kind.read(folder)
    except (ValueError, OSError):
        found = expected
    except Exception as error:
        return f"{path.name}: {type(error).__name__}: {error}"
    if canary.exists():
        return f"{path.name}: a pickle was opened"
    covered = path.name in ("rank_00000.safetensors", "rank_00000.json") or (folder / DIGESTS_NAME).is_file()
    older = isinstance(found, tuple) and found[:1] == ("old",)
    if honest and covered and found != expected and not older and path.name != "MANIFEST.json":
        return f"{path.name}: other values were read, and no error"
    return None


def fuzz(name: str, mutations: int, seed: int) -> list[str]:
    """Runs the trials of a kind; returns what went wrong."""
    draw, kind = random.Random(f"{name} {seed}"), KINDS[name]
    problems = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "whole").mkdir()
        kind.write(root / "whole")
        expected = kind.read(root / "whole")
        for number in range(mutations):
            folder = root / "damaged"
            shutil.copytree(root / "whole", folder)
            if isinstance(expected, tuple) or expected is None:
                problem = trial(kind, folder, draw, root / "canary", expected)
            else:  # a corpus stores its folder: compared by content
                fresh = kind._replace(read=lambda folder: kind.read(folder).conversations)
                problem = trial(fresh, folder, draw, root / "canary", expected.conversations)
            if problem is not None:
                problems.append(f"{name} {number}: {problem}")
            shutil.rmtree(folder)
    return problems


def main() -> int:
    """Fuzzes every kind; the exit status is 1 where something went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutations", type=int, default=2000, help="of each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable()  # preparations tell what they find
    failed = 0
    for name, kind in KINDS.items():
        problems = fuzz(name, options.mutations * len(kind.files), options.seed)
        failed += len(problems)
        print(
            f"{name}: {options.mutations * len(kind.files)} mutations, {len(problems)} failures", flush=True
        )
        print("\n".join(problems[:20]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
