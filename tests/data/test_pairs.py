"""Pairs that are stored: made in full batches, file by file, and read by a training."""

import json
from pathlib import Path

import pytest
import torch

from tests.helpers.corpora import run
from tests.helpers.tiny_release import write_tiny_release
from voxclone.data.pairs import PairSettings, draw_pairs, read_pairs, speak_pairs
from voxclone.data.shards import Shard
from voxclone.errors import ConfigError
from voxclone.release.release import Release, load_preset
from voxclone.tts.batch import Sampling
from voxclone.tts.generate import Request, generate_many
from voxclone.tts.tts import TTS

TEXTS = ["One.", "Two and three.", "Four, five and six."]
FEW, MINUTES = PairSettings(batch=2, min_frames=1), 0.02


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return Release.open(write_tiny_release(tmp_path_factory.mktemp("pairs") / "release"))


@pytest.fixture(scope="module")
def tts(release: Release) -> TTS:
    return TTS.load(release)


def test_requests_get_the_same_codes_alone_and_among_others(release: Release, tts: TTS) -> None:
    voice_ND = load_preset(release, "anna")
    requests = []
    for n in range(9):
        ids_L = tts.prompts.ids(TEXTS[n % 3], len(voice_ND))
        prompt_LD = tts.backbone.embed_prompt(ids_L, voice_ND)[0]
        sampling = Sampling(1.0 + 0.1 * n, 0.0 if n % 4 == 0 else 0.5 + 0.1 * n)
        requests.append(Request(prompt_LD, n, 2 + 5 * (n % 4), sampling))
    together = dict(generate_many(tts.backbone, tts.head, iter(requests), 3))
    assert sorted(together) == list(range(9))
    lengths = set()
    for number, request in enumerate(requests):
        ((_, alone),) = generate_many(tts.backbone, tts.head, [request], 1)
        assert torch.equal(alone.codes_KT, together[number].codes_KT)
        assert alone.truncated == together[number].truncated
        lengths.add(alone.codes_KT.shape[1])
    assert len(lengths) > 2  # they left the batch at different times


def test_pairs_go_on_where_they_stopped(
    release: Release, tts: TTS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = _ending(tts)
    whole = speak_pairs(release, ending, TEXTS, FEW, MINUTES, tmp_path / "whole")
    files = sorted((tmp_path / "whole").glob("batch-*"))
    longer = MINUTES * 2
    minutes: list[float] = []
    more = speak_pairs(
        release, ending, TEXTS, FEW, longer, tmp_path / "whole", progress=minutes.append
    )
    assert len(more) > len(whole) and minutes == sorted(minutes) and minutes[-1] >= longer
    assert all(torch.equal(a, b) for a, b in zip(whole, more, strict=False))
    files[0].unlink()
    again = speak_pairs(release, ending, TEXTS, FEW, longer, tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(more, again, strict=True))
    with pytest.raises(ConfigError, match="another texts"):
        speak_pairs(release, ending, TEXTS[:2], FEW, MINUTES, tmp_path / "whole")
    with pytest.raises(ConfigError, match="another settings"):
        other = FEW.model_copy(update={"seed": 3})
        speak_pairs(release, ending, TEXTS, other, MINUTES, tmp_path / "whole")


def test_processes_make_each_their_own_files(release: Release, tts: TTS, tmp_path: Path) -> None:
    ending = _ending(tts)
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    for number in range(2):
        shard = Shard(number, 2)
        speak_pairs(release, ending, TEXTS, FEW, MINUTES, shared, shard=shard)
    speak_pairs(release, ending, TEXTS, FEW, MINUTES, alone)
    both = {p.name: p.read_bytes() for p in shared.glob("batch-*")}
    assert {"batch-00000.safetensors", "batch-00001.safetensors"} <= set(both)
    for path in alone.glob("batch-*"):
        assert both.get(path.name, path.read_bytes()) == path.read_bytes()


def test_stored_pairs_are_read_and_drawn_from(release: Release, tts: TTS, tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    made = speak_pairs(release, _ending(tts), TEXTS, FEW, MINUTES, folder)
    stored = read_pairs(folder, release)
    assert all(torch.equal(a, b) for a, b in zip(made, stored, strict=True))
    assert stored[0].dtype == torch.int16
    codes_BKT, mask_BT = draw_pairs(stored, 5, 8, torch.Generator().manual_seed(0))
    assert codes_BKT.dtype == torch.int64 and mask_BT.any()
    facts = json.loads((folder / "pairs.json").read_text())
    (folder / "pairs.json").write_text(json.dumps(facts | {"book": "other"}))
    with pytest.raises(ConfigError, match="another codebook"):
        read_pairs(folder, release)
    (folder / "pairs.json").write_text(json.dumps(facts))
    first = min(folder.glob("batch-*"))
    first.write_bytes(first.read_bytes()[:50])
    with pytest.raises(ConfigError, match="delete that file"):
        read_pairs(folder, release)
    first.unlink()
    for path in folder.glob("batch-*"):
        path.unlink()
    with pytest.raises(ConfigError, match="holds no pairs yet"):
        read_pairs(folder, release)
    with pytest.raises(ConfigError, match="no folder of pairs"):
        read_pairs(tmp_path, release)


def test_a_model_that_never_ends_is_given_up(
    release: Release, tts: TTS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxclone.data.pairs.MAX_EMPTY", 1)
    monkeypatch.setattr("voxclone.data.pairs.frame_cap", lambda text, rate: 9)
    with pytest.raises(ConfigError, match="ended by itself"):
        speak_pairs(release, _ending(tts, never=True), ["A."], FEW, MINUTES, tmp_path / "pairs")


def test_the_command_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    given = ("pairs", "-o", tmp_path / "p", "--minutes", 1)
    code, error = run(*given, "--shard", "4/4")
    assert code == 2 and "I/N" in error
    code, error = run(*given, "--texts", tmp_path / "none")
    assert code == 1 and "cannot be read" in error and not (tmp_path / "p").exists()


def _ending(tts: TTS, *, never: bool = False) -> TTS:
    """The model with a head that ends about every tenth frame, or never."""
    head = tts.head.__class__(tts.params)
    head.load_state_dict(tts.head.state_dict())
    ordinary = head.semantic_logits

    def logits(hidden_BD: torch.Tensor) -> torch.Tensor:
        logits_BV = ordinary(hidden_BD) * 0.1
        logits_BV[..., 1] = -1e9 if never else logits_BV[..., 2:].logsumexp(dim=-1) - 2.2
        return logits_BV

    head.semantic_logits = logits  # type: ignore[method-assign]
    return TTS(tts.params, tts.backbone, head.eval(), tts.codec, tts.prompts)
