"""AMI, CANDOR, DailyTalk, Expresso, Fisher and Switchboard: small trees of exactly their form."""

from csm.data.word_times import read_words
from tests.data.corpora.layouts.small_trees import ledger, prepared, said, sound, text


def test_dailytalk_has_dialogues_of_two_people(tmp_path) -> None:
    for name, spoken in (
        ("0_1_d0", "What are you working on?"),
        ("10_1_d0", "Last."),
        ("1_0_d0", "A budget."),
    ):
        sound(tmp_path / f"in/data/0/{name}.wav")
        text(tmp_path / f"in/data/0/{name}.txt", spoken + "\n")
    sound(tmp_path / "in/data/1/0_0_d1.wav")
    text(
        tmp_path / "in/metadata.json", {"0": {"0": {"emotion": "no emotion"}, "1": {"emotion": "happiness"}}}
    )
    corpus = prepared(tmp_path, layout="dailytalk", name="dailytalk")
    assert [entry[:3] for entry in said(corpus)] == [
        ("d0", "dailytalk-1", "What are you working on?"),
        ("d0", "dailytalk-0", "A budget."),
        ("d0", "dailytalk-1", "Last."),
    ]
    assert [turn.emotion for turn in corpus.turns()] == [None, "happiness", None]
    assert "0_0_d1.txt is missing" in ledger(corpus) and corpus.info["licence"] == "CC BY-SA 4.0"


def test_expresso_has_read_sentences_and_conversations_without_words(tmp_path) -> None:
    root = tmp_path / "in/expresso"
    sound(root / "audio_48khz/read/ex01/happy/base/ex01_happy_00001.wav", rate=48_000)
    sound(
        root / "audio_48khz/conversational/ex01-ex02/happy/ex01-ex02_happy_001.wav", channels=2, rate=48_000
    )
    text(root / "read_transcriptions.txt", "ex01_happy_00001\tWhat a day!\n")
    text(root / "splits/train.txt", "ex01_happy_00001\n")
    corpus = prepared(tmp_path)
    assert [(t.id, t.speaker, t.text, t.emotion) for t in corpus.turns()] == [
        ("ex01_happy_00001", "ex01", "What a day!", "happy")
    ]
    assert "--transcribe recognises them" in ledger(corpus) and "is no transcript" in ledger(corpus)


def test_expresso_below_a_folder_called_conversational_has_read_sentences(tmp_path) -> None:
    root = tmp_path / "conversational"
    sound(root / "in/audio_48khz/read/ex01/happy/base/ex01_happy_00001.wav", rate=48_000)
    text(root / "in/read_transcriptions.txt", "ex01_happy_00001\tWhat a day!\nno text\n")
    corpus = prepared(root)
    assert [turn.text for turn in corpus.turns()] == ["What a day!"] and "has one column" in ledger(corpus)


def test_ami_joins_the_words_of_headsets_that_were_recorded_together(tmp_path) -> None:
    def words(agent: str, content: str) -> None:
        name = f"ES2002a.{agent}.words.xml"
        space = 'xmlns:nite="http://nite.sourceforge.net/"'
        text(tmp_path / "in/words" / name, f'<nite:root nite:id="{name}" {space}>{content}</nite:root>')

    for number in range(2):
        sound(tmp_path / f"in/ES2002a/audio/ES2002a.Headset-{number}.wav", 3.0)
    words("A", '<w starttime="0.1" endtime="0.4">Okay</w><w punc="true">.</w><vocalsound type="laugh"/>')
    words("B", '<w starttime="0.3" endtime="0.6">Right</w><w>so</w><w starttime="0.7" endtime="0.9">yes</w>')
    words("C", '<w starttime="0.3" endtime="0.6">Lost</w>')
    speaker = '<speaker nxt_agent="A" channel="1" global_name="MEE006"/>'
    meetings = f'<r><meeting observation="ES2002a">{speaker}</meeting></r>'
    text(tmp_path / "in/corpusResources/meetings.xml", meetings)
    corpus = prepared(tmp_path)
    assert said(corpus) == [
        ("ES2002a", "MEE006", "Okay.", 0, 0.1, 0.4),
        ("ES2002a", "ES2002a-B", "Right yes", 0, 0.3, 0.9),
    ]
    assert all(turn.overlap for turn in corpus.turns()) and len(read_words(corpus.root)) == 2
    for reason in ("1 x vocalsound", "1 x word without times", "ES2002a.Headset-2.wav is missing"):
        assert reason in ledger(corpus)


def test_ami_keeps_what_can_be_read_of_damaged_words_and_names(tmp_path) -> None:
    sound(tmp_path / "in/audio/ES1.Headset-0.wav")
    content = '<w starttime="0.1" endtime="0.4">caf\xe9</w><w starttime="x" endtime="0.9">there</w>'
    content += '<w starttime="0.5" endtime="0.7"/>'
    (tmp_path / "in/words").mkdir()
    head = '<?xml version="1.0" encoding="ISO-8859-1"?>'
    (tmp_path / "in/words/ES1.A.words.xml").write_bytes(f"{head}<r>{content}</r>".encode("latin-1"))
    text(tmp_path / "in/words/ES1.Z.words.xml", "<r/>")
    text(tmp_path / "in/meetings.xml", "<r>")
    corpus = prepared(tmp_path)
    assert said(corpus) == [("ES1", "ES1-A", "caf\xe9", 0, 0.1, 0.4)]
    for reason in ("1 x word without times", "1 x word without letters", "ES1.Headset-25.wav is missing"):
        assert reason in ledger(corpus)
    assert "is no XML that can be read" in ledger(corpus)


def test_candor_keeps_backchannels_beside_the_turns_that_they_accompany(tmp_path) -> None:
    root = tmp_path / "in/0a1b"
    sound(root / "processed/0a1b.wav", 4.0, channels=2)
    text(root / "transcription/channel_map.json", {"L": "p1", "R": "p2"})
    head = "turn_id,speaker,start,stop,utterance,backchannel"
    head += ",backchannel_speaker,backchannel_start,backchannel_stop\n"
    rows = '0,p1,0.1,2.0,"Well, you know.",yeah,p2,1.0,1.3\n1,p2,2.2,3.0,I do.,,,,\n2,p3,3.0,3.5,Who?,,,,\n'
    text(root / "transcription/transcript_backbiter.csv", head + rows)
    text(root / "transcription/transcript_audiophile.csv", "turn_id,speaker,start,stop,utterance\n")
    corpus = prepared(tmp_path)
    assert [entry[1:] for entry in said(corpus)] == [
        ("p1", "Well, you know.", 0, 0.1, 2.0),
        ("p2", "yeah", 1, 1.0, 1.3),
        ("p2", "I do.", 1, 2.2, 3.0),
    ]
    assert "speaker is 'p3'" in ledger(corpus) and "is read in its place" in ledger(corpus)


def test_fisher_names_people_and_leaves_marks_out(tmp_path) -> None:
    root = tmp_path / "in"
    sound(root / "audio/000/fe_03_00001.wav", 8.0, channels=2, rate=8_000)
    lines = "# fe_03_00001.sph\n# Transcribed at the LDC\n\n0.10 1.20 A: hello [laughter] (( there ))\n\n"
    lines += "1.50 2.00 B: hi\n2.5 3.0 B: [noise]\n3.0 hi\n"
    text(root / "fe_03_p1_tran/data/trans/000/fe_03_00001.txt", lines)
    text(root / "fe_03_p1_tran/data/trans/000/fe_03_00002.txt", "0.1 0.2 A: hi\n")
    text(root / "doc/fe_03_p1_calldata.tbl", "CALL_ID,APIN,ASX.DL,BPIN\n00001,2602,f.a,1790\n")
    corpus = prepared(tmp_path)
    assert said(corpus) == [
        ("fe_03_00001", "fisher-2602", "hello there", 0, 0.1, 1.2),
        ("fe_03_00001", "fisher-1790", "hi", 1, 1.5, 2.0),
    ]
    for reason in ("text is empty", "start end A: text", "fe_03_00002.sph or .wav is missing"):
        assert reason in ledger(corpus)
    assert corpus.info["turns_rejected"] == 2


def test_switchboard_merges_both_sides_and_keeps_word_times(tmp_path) -> None:
    root = tmp_path / "in"
    sound(root / "sw02001.wav", 8.0, channels=2, rate=8_000)
    trans = "sw2001A-ms98-a-0001 0.0 0.9 [silence]\n"
    trans += "sw2001A-ms98-a-0002 0.9 2.0 [laughter-yes] th[at]- uh-huh_1 {so}\n"
    text(root / "20/2001/sw2001A-ms98-a-trans.text", trans)
    words = "sw2001A-ms98-a-0002 1.0 1.2 [laughter-yes]\nsw2001A-ms98-a-0002 1.2 1.3 [noise]\n"
    text(root / "20/2001/sw2001A-ms98-a-word.text", words)
    text(root / "20/2001/sw2001B-ms98-a-trans.text", "sw2001B-ms98-a-0001 2.0 2.5 hi\n")
    corpus = prepared(tmp_path)
    assert said(corpus) == [
        ("sw2001", "sw2001-A", "yes th- uh-huh so", 0, 0.9, 2.0),
        ("sw2001", "sw2001-B", "hi", 1, 2.0, 2.5),
    ]
    assert [tuple(word) for word in read_words(corpus.root)["sw2001A-ms98-a-0002"]] == [("yes", 1.0, 1.2)]
    assert corpus.info["turns_rejected"] == 1


def test_switchboard_leaves_the_word_times_of_a_turn_out_where_one_is_damaged(tmp_path) -> None:
    sound(tmp_path / "in/sw02001.wav", 8.0, channels=2, rate=8_000)
    turns = "sw2001A-ms98-a-0001 0.1 0.9 oh yes\nsw2001A-ms98-a-0002 1.0 2.0 so\n"
    text(tmp_path / "in/sw2001A-ms98-a-trans.text", turns)
    words = (
        "sw2001A-ms98-a-0001 0.1 x oh\nsw2001A-ms98-a-0001 0.5 0.9 yes\nsw2001A-ms98-a-0002 1.0 2.0 so\nx\n"
    )
    text(tmp_path / "in/sw2001A-ms98-a-word.text", words)
    corpus = prepared(tmp_path)
    assert [turn.text for turn in corpus.turns()] == ["oh yes", "so"]
    assert set(read_words(corpus.root)) == {"sw2001A-ms98-a-0002"}
    assert "word.text, line 1" in ledger(corpus) and "word.text, line 4" in ledger(corpus)


def test_dailytalk_loses_the_emotions_of_a_damaged_dialogue_alone(tmp_path) -> None:
    for dialogue in range(3):
        sound(tmp_path / f"in/data/{dialogue}/0_0_d{dialogue}.wav")
        text(tmp_path / f"in/data/{dialogue}/0_0_d{dialogue}.txt", "Hello.")
    glad = {"0": {"emotion": "happiness"}}
    text(tmp_path / "in/metadata.json", {"0": glad, "1": ["x"], "2": glad})
    corpus = prepared(tmp_path, layout="dailytalk")
    assert [turn.emotion for turn in corpus.turns()] == ["happiness", None, "happiness"]
    assert "metadata.json, 1" in ledger(corpus) and "is list: expected its turns by number" in ledger(corpus)


def test_expresso_names_lines_without_a_recording_and_texts_of_one_recording(tmp_path) -> None:
    for folder in ("a", "b"):
        sound(tmp_path / f"in/{folder}/audio_48khz/read/ex01/sad/base/ex01_sad_{folder}.wav", rate=48_000)
    text(
        tmp_path / "in/a/read_transcriptions.txt",
        "ex01_sad_a\tFirst.\nex01_sad_a\tSecond.\nex01_sad_c\tGone.\n",
    )
    text(tmp_path / "in/b/read_transcriptions.txt", "ex01_sad_a\tOf another folder.\nex01_sad_b\t\0\n")
    corpus = prepared(tmp_path)
    assert [turn.text for turn in corpus.turns()] == ["First."]
    for reason in (
        "ex01_sad_a has a text already",
        "recording 'ex01_sad_c' is missing",
        "recording 'ex01_sad_a' is missing",
        "control character",
        "has no text of it",
    ):
        assert reason in ledger(corpus)


def test_candor_reads_the_next_transcript_where_the_first_is_no_text(tmp_path) -> None:
    root = tmp_path / "in/0a1b"
    sound(root / "processed/0a1b.wav", 4.0, channels=2)
    text(root / "transcription/channel_map.json", {"L": "p1", "R": "p2"})
    text(root / "transcription/transcript_audiophile.csv", "speaker,start,stop,utterance\np1,0.1,2.0,Well.\n")
    (root / "transcription/transcript_backbiter.csv").write_bytes(b"speaker,start\xe9")
    corpus = prepared(tmp_path)
    assert [turn.text for turn in corpus.turns()] == ["Well."]


def test_candor_asks_for_two_people_and_leaves_the_name_of_an_empty_conversation_free(tmp_path) -> None:
    for copy, people in enumerate((("p1", "p1"), ("p1", "p2"), ("p1", "p3"))):
        root = tmp_path / f"in/{copy}/0a1b"
        sound(root / "processed/0a1b.wav", 4.0, channels=2)
        text(root / "transcription/channel_map.json", dict(zip("LR", people, strict=True)))
        row = "p3,x,2.0,Lost.\n" if copy == 1 else "p1,0.1,2.0,Well.\n"
        text(root / "transcription/transcript_backbiter.csv", f"speaker,start,stop,utterance\n{row}")
    corpus = prepared(tmp_path)
    assert [entry[:3] for entry in said(corpus)] == [("0a1b", "p1", "Well.")]
    assert "are both p1: expected two people" in ledger(corpus)


def test_fisher_asks_for_one_recording_of_a_call_and_shortens_damaged_lines(tmp_path) -> None:
    for number in range(1, 3):
        sound(tmp_path / f"in/fe_03_0000{number}.wav", 4.0, channels=2, rate=8_000)
        text(tmp_path / f"in/data/fe_03_0000{number}.txt", "0.10 1.20 A: hello\n" + "x" * 9_000)
    sound(tmp_path / "in/copies/fe_03_00002.wav", 4.0, channels=2, rate=8_000)
    text(tmp_path / "in/fe_03_p1_calldata.tbl", "CALL_ID,APIN,BPIN\n00001,\0,1790\n")
    corpus = prepared(tmp_path)
    assert [turn.conversation for turn in corpus.turns()] == ["fe_03_00001"]
    assert "copies/fe_03_00002.wav, fe_03_00002.wav: expected one" in ledger(corpus)
    assert "PIN holds the control character" in ledger(corpus)
    assert max(map(len, ledger(corpus).splitlines())) < 1_000


def test_a_recording_whose_transcript_holds_no_turn_is_entered_as_left_out(tmp_path) -> None:
    for number, line in enumerate(("0.10 1.20 A: hello", "0.10 hello"), 1):
        sound(tmp_path / f"in/fe_03_0000{number}.wav", 4.0, channels=2, rate=8_000)
        text(tmp_path / f"in/fe_03_0000{number}.txt", line)
    corpus = prepared(tmp_path, layout="fisher")
    assert corpus.info["files_rejected"] == 2 and "no turn of it can be used" in ledger(corpus)
