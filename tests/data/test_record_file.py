"""Records come back as they were appended, from memory and from the disk, and leave no file."""

from pathlib import Path

import pytest

from csm.data import record_file
from csm.data.record_file import RecordFile
from csm.data.word_times import Word


@pytest.mark.parametrize("held", [2**24, 100])
def test_records_are_read_in_any_order_between_appends(tmp_path: Path, monkeypatch, held: int) -> None:
    monkeypatch.setattr(record_file, "HELD_BYTES", held)
    records: RecordFile[tuple[int, tuple[Word, ...]]] = RecordFile(tmp_path)
    assert len(records) == 0 and not records and list(records) == []
    made = [(number, (Word("d\u00e9", 0.1 * number, 1.0),) * (number % 3)) for number in range(50)]
    for number, record in enumerate(made):
        records.append(record)
        assert records[number // 2] == made[number // 2]
    assert records == made and records[:3] == tuple(made[:3])
    one, two = iter(records), records.read([49, 0])
    assert [next(one), next(two), next(one), next(two)] == [made[0], made[49], made[1], made[0]]
    assert not list(tmp_path.iterdir())
    records.close()
    with pytest.raises(ValueError, match="closed"):
        records[0]
