"""A corpus of anything that people record or have: the layout of the folder is recognised, or named."""

from __future__ import annotations

import shutil
from pathlib import Path

from csm.data.corpora.corpus_writer import CorpusWriter
from csm.data.corpora.layouts.importing import Importer, Transcriber
from csm.data.corpora.layouts.recognition import recognised
from csm.data.corpora.layouts.tree import Tree
from csm.data.corpora.source_files import find_files, fingerprint, readable, source_root
from csm.data.corpora.split_choice import SplitChoice
from csm.data.manifest import Corpus
from csm.system.log import log, progress_of

LICENCES = {
    "dailytalk": "CC BY-SA 4.0",
    "expresso": "CC BY-NC 4.0",
    "ami": "CC BY 4.0",
    "candor": "CC BY-NC 4.0",
    "fisher": "LDC user agreement",
    "switchboard": "LDC user agreement",
}


def prepare_recordings(
    output: str | Path,
    *,
    source: str | Path,
    layout: str | None = None,
    name: str = "recordings",
    transcriber: Transcriber | None = None,
    transcription: str = "none",
    splits: SplitChoice | None = None,
) -> Corpus:
    """Builds a corpus folder from a folder of recordings in one of the known layouts.

    Args:
        output: Path of the corpus folder; a finished one of the same files and options is returned unchanged.
        source: Folder of the recordings, which is only read; `output` must lie outside.
        layout: Name of the layout; None recognises it.
        name: Name of the corpus.
        transcriber: Finds speakers and words of recordings without a transcript; None rejects these.
        transcription: Description of the transcriber for corpus.json.
        splits: What is held out; None is what the layout states, else a function of the ids.

    Raises:
        ValueError: The folder fits no layout or several, nothing in it can be used, `output` lies inside it
            or holds another corpus, or the disk is too full.
    """
    root = source_root(source, output)
    files = find_files(root)
    writer = CorpusWriter(
        folder=Path(output),
        identity={
            "name": name,
            "source": f"{len(files)} files, SHA-256 {fingerprint(root, files)}",
            "layout": layout or "recognised",
            "transcription": transcription,
            **(splits or SplitChoice()).identity(),
        },
        splits=splits or SplitChoice(),
        notes={"licence": LICENCES[name]} if name in LICENCES else {},
        needed_bytes=sum(path.stat().st_size for path in files if readable(path)),
    )
    if finished := writer.finished():
        return finished
    scratch = writer.folder.parent / f".{writer.folder.name}.decoded"
    tree = Tree(root, scratch)
    chosen, found = recognised(tree, layout)
    log.info("layout %s: %s", chosen.name, found.encode("ascii", "backslashreplace").decode())
    writer.notes["recognised"] = f"{chosen.name}: {found}"
    writer.start(resume=True)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        importer = Importer(writer, tree, transcriber)
        importer.add_all(progress_of(chosen.read(tree), chosen.name, len(tree.audio()), unit="conversation"))
        if importer.wordless:
            writer.notes["turns_without_words"] = importer.wordless
            log.warning(
                "%d turns have no recognised word: their texts are empty, they train the tokenizer only",
                importer.wordless,
            )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return writer.finish()
