"""Speakers are many, and held-out ones share nothing with those that train."""

from csm.data.corpora.synthetic_dialogues.voices import SHARES, held_out_speakers, speakers


def test_there_are_at_least_sixty_speakers():
    assert len(speakers()) == 64 and len(held_out_speakers()) == 6


def test_no_voice_of_a_held_out_speaker_is_part_of_a_training_speaker():
    trained = {voice for speaker in speakers().values() for voice, _ in speaker.parts}
    held_out = {voice for speaker in held_out_speakers().values() for voice, _ in speaker.parts}
    assert not trained & held_out


def test_weights_of_a_blend_add_up_to_one_and_rates_are_moderate():
    for speaker in (*speakers().values(), *held_out_speakers().values()):
        assert abs(sum(weight for _, weight in speaker.parts) - 1) < 1e-9
        assert 0.9 <= speaker.speed <= 1.16


def test_the_voices_that_speak_most_are_training_speakers():
    assert SHARES.keys() <= speakers().keys() and sum(SHARES.values()) < 0.5
