"""Goals of the mini release: intervals of WER, and clips and sentences that no training reads."""

from pathlib import Path

import pytest
import torch

from recipes.mini_release.goals import Measurement, unread_sentences, wer_interval
from recipes.mini_release.progress import spread_clips
from voxclone.data.manifest import Clip


def clip(name: str, split: str, text: str, speaker: str = "a", duration: float = 3.0) -> Clip:
    return Clip(
        id=name,
        path=Path(f"{name}.wav"),
        speaker=speaker,
        duration=duration,
        split=split,
        text=text,
    )


def test_an_interval_of_wer_surrounds_the_rate_of_all_words() -> None:
    texts = ["one two three four", "five six", "seven eight nine ten"] * 4
    found = ["One, two, three four!", "five sick", ""] * 4
    interval = wer_interval(texts, found)
    assert interval["wer"] == pytest.approx(5 / 10) and interval["clips"] == 12
    assert interval["low"] < 0.5 < interval["high"]
    exact = wer_interval(texts, texts)
    assert exact["wer"] == exact["low"] == exact["high"] == 0


def test_clips_are_spread_over_speakers() -> None:
    clips = [clip(f"x-{n}", "test", "t", speaker=f"s{n % 2}") for n in range(6)]
    clips += [clip("x-9", "train", "t", speaker="s2"), clip("y-1", "test", "t", speaker="s3")]
    clips += [clip("x-8", "test", "t", speaker="s4", duration=9.0)]
    chosen = [clips[i] for i in spread_clips(clips, "x", "test", 4)]
    assert [each.speaker for each in chosen] == ["s0", "s1"] * 2
    assert len({each.id for each in chosen}) == 4


def test_no_sentence_is_one_of_the_training() -> None:
    clips = [
        clip("kathleen-1", "train", "This one was read, in training."),
        clip("kathleen-2", "valid", "This one was read in training"),
        clip("kathleen-3", "valid", "And this one was not."),
        clip("speechocean762-1", "test", "Nor was this."),
        clip("other-1", "valid", "Other speech is not used."),
    ]
    texts = unread_sentences(clips)
    assert texts[-2:] == ["And this one was not.", "Nor was this."]
    assert len(texts) == len(set(texts)) > 12


def test_measured_clips_are_kept(tmp_path: Path) -> None:
    class Repeater:
        def transcribe_all(self, waves: list[torch.Tensor]) -> list[str]:
            return ["hello there" if len(wave_S) else "" for wave_S in waves]

    measurement = Measurement(tmp_path, Repeater(), [])  # type: ignore[arg-type]
    waves = [torch.rand(4800) / 10, torch.zeros(0)]
    result = measurement.words("demo", waves, ["Hello there.", "Nobody speaks."])
    assert result["wer"] == 0.5
    assert [each["whisper"] for each in result["transcripts"]] == ["hello there", ""]
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["00.wav"]
