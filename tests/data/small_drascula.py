"""A small drascula.dat, dialogues and clips in the formats of the game."""

import re
import struct

import numpy as np

TABLES = ("", "D", "B", "BJ", "E", "I", "L", "P", "T", "VB")
RECORD_BYTES = (4, 4, 4, 2, 4, 2, 4, 2, 2, 20, 20, 10)
COMMANDS = {"": 13, "B": 14, "P": 15, "BJ": 16, "VB": 17, "I": 19, "L": 20, "E": 21, "D": 22, "T": 23}
LANGUAGES = 3

TEXTS = {
    "1": "IT'S JUST A DOOR",
    "2": "NO. I WON'T, DRASCULA!",
    "3": "IT'S CLOSED",
    "7": "WHO ARE YOU?",
    "8": "ARE YOU IGOR?",
    "9": "WHERE IS B.J.?",
    "10": "ALL RIGHT. GOODBYE",
    "D56": "HI BLIND MAN",
    "D68": "HI THERE FOREIGNER",
    "I16": "I'M IGOR, MASTER",
    "VB1": "GET OUT!!",
}
SEQUENCES = {"1:2": ["1", "VB1"], "4:2": ["I16", "2"]}


def make_dat(texts: dict[str, str], sequences: dict[str, list[str]]) -> bytes:
    """drascula.dat with the texts as English, "other" in the other languages."""
    content = b"DRASCULA\6"
    for size in RECORD_BYTES:
        content += struct.pack(">H", 2) + bytes(2 * size)
    records = []
    for key, clips in sequences.items():
        place = tuple(map(int, key.split(":")))
        records.append(struct.pack(">4h", *place, 0, 40))  # a pause: a command that says nothing
        for clip in clips:
            prefix, number = re.fullmatch(r"(\D*)(\d+)", clip).groups()
            command = COMMANDS["T"] if clip == "D82" else COMMANDS[prefix]
            records.append(struct.pack(">4h", *place, command, int(number)))
    content += struct.pack(">H", len(records)) + b"".join(records) + struct.pack(">H", LANGUAGES)
    for table in TABLES:
        own = {int(re.sub(r"\D", "", c)): t for c, t in texts.items() if re.sub(r"\d", "", c) == table}
        lines = [own.get(number, "") for number in range(max(own, default=0) + 1)]
        content += struct.pack(">H", len(lines))
        for language in range(LANGUAGES):
            block = bytes(2)
            for line in lines if language == 0 else ["OTHER"] * len(lines):
                text = line.encode("cp437") + b"\0"
                text += bytes(4 - (len(text) + 2) % 4)
                block += struct.pack(">H", len(text) + 2) + text
            content += struct.pack(">H", len(block)) + block
    return content


def make_dialogue(texts: list[str], clips: list[int], answers: list[int], line_end: str = "\r\n") -> bytes:
    lines = [text.replace(" ", "§") for text in texts] + [f"{clip}.ALS" for clip in clips]
    plain = line_end.join([*lines, *map(str, answers), ""])
    return bytes(byte ^ 0xFF for byte in plain.encode("latin1"))


def raw(seconds: float) -> bytes:
    samples = np.sin(2 * np.pi * 200 * np.arange(int(11_025 * seconds)) / 11_025)
    return np.rint(128 + 60 * samples).astype(np.uint8).tobytes()
