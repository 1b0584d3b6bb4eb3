"""Which character is spoken when."""

import numpy as np
import torch

from recipes.mini_release.alignment import align, align_transcript, character_positions
from voxclone.models.ctc_asr import Recognizer, RecognizerConfig


def test_alignment_finds_the_frames_of_each_character() -> None:
    path = [0, 0, 1, 1, 0, 2, 0, 2, 2, 0, 3]
    log_probs = np.full((len(path), 4), np.log(0.01))
    log_probs[np.arange(len(path)), path] = np.log(0.97)
    assert align(log_probs, [1, 2, 2, 3]) is not None
    assert align(log_probs, [1, 2, 2, 3]).tolist() == [2, 5, 7, 10]  # type: ignore[union-attr]
    assert align(log_probs[:3], [1, 2, 2, 3]) is None
    assert align(log_probs, []) is None


def test_positions_of_normalized_characters_in_the_text() -> None:
    text, normal = "\u201cWe, the DOGS!\u201d", "we the dogs"
    positions = character_positions(text, normal)
    letters = [text[p].lower() for p, c in zip(positions, normal, strict=True) if c != " "]
    assert "".join(letters) == normal.replace(" ", "")
    assert positions == sorted(positions)


def test_a_transcript_has_a_time_for_every_byte() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        recognizer = Recognizer(RecognizerConfig(characters=" abc\u00e9", dim=8, blocks=1)).eval()
    text = "A caf\u00e9, b!"
    wave_S = 0.1 * torch.randn(48000, generator=torch.Generator().manual_seed(0))
    found = align_transcript(recognizer, wave_S, text, list(text.encode()))
    assert found.seconds is not None and len(found.seconds) == len(text.encode())
    assert found.seconds == sorted(found.seconds) and 0 <= found.seconds[-1] <= 2
    assert align_transcript(recognizer, wave_S[:480], text, list(text.encode())).seconds is None
