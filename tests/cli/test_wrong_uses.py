"""Wrong uses: each ends with its exit code and one sentence, and changes no file."""

import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.command import Command, sentence
from tests.helpers.signals import speech
from voxclone.io import tensor_hash
from voxclone.release.encoder_file import codebook_hash, packaged_encoder
from voxclone.release.presets import write_preset
from voxclone.release.release import Release, load_preset, load_table
from voxclone.release.tensors import codebook_sizes
from voxclone.voice.embedding import voice_embedding
from voxclone.voice.file import Voice
from voxclone.voice.metadata import Consent, VoiceMetadata

DATA = Path(__file__).parent / "data"
TABLE = DATA / "wrong_uses.txt"
OLD_VOICE = Path(__file__).parents[1] / "voice" / "data" / "anna-1.voice.safetensors"
MORE = {"long": "n" * 300, "deep": "[" * 200}


def cases() -> list[tuple[int, str, str]]:
    """Exit code, words and arguments of each line of the table."""
    found = []
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            code, words, arguments = line.split(" | ")
            found.append((int(code), words, arguments))
    return found


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, mini_release: Release) -> Path:
    """A folder with what the table names."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("folder", "folder.wav", "voices", "reports", "foreign"):
        (folder / name).mkdir()
    wave_S = speech([0.8, 1.0], [0.1, 0.2, 0.2])
    soundfile.write(folder / "me.wav", wave_S, 24000)
    soundfile.write(folder / "folder" / "clip.wav", wave_S, 24000)
    soundfile.write(folder / "silence.wav", np.zeros(48000), 24000)
    soundfile.write(folder / "short.wav", wave_S[:4000], 24000)
    (folder / "link.wav").symlink_to("me.wav")
    os.link(folder / "me.wav", folder / "hard.wav")
    os.mkfifo(folder / "pipe")
    row = {"id": "a", "path": "me.wav", "speaker": "s", "duration": 2.0}
    report = {"schema": "voxclone.diagnosis/2", "mine": 1}
    texts = {
        "text.txt": "Hello there.", "text.wav": "Hello there.", "empty.wav": "",
        "notes.json": '{"mine": 1}', "foreign/report.json": "{}",
        "reports/report.json": json.dumps(report), "manifest.jsonl": json.dumps(row),
        "list.lst": "a|b|me.wav|Hello.", "long.lst": f"a|b|{'n' * 5000}|Hello.",
        "deep.json": "[" * 200 + "]" * 200, "config.yaml": "{}", "list.yaml": "[1]",
        "self.yaml": "base: self.yaml", "alias.yaml": "a: &x 1\nb: *x", "base.yaml": "base: 3",
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "cp1252.txt").write_bytes("Grüße".encode("cp1252"))
    (folder / "utf16.txt").write_bytes("Hello".encode("utf-16"))
    (folder / "unmarked.txt").write_bytes("Hello".encode("utf-16-le"))
    (folder / "cyrillic.txt").write_bytes("Привет".encode("utf-16-le"))  # without any NUL
    scripts = {
        "devanagari": "नमस्ते दुनिया",
        "oriya": "ନମସ୍କାର",
        "telugu": "నమస్తే",
        "malayalam": "നമസ്കാരം",
    }
    for name, text in scripts.items():  # high bytes that are white space
        (folder / f"{name}.txt").write_bytes(text.encode("utf-16-le"))
        (folder / f"{name}_be.txt").write_bytes(text.encode("utf-16-be"))
    suffixes = ("voice.safetensors", "json", "jsonl", "tsv", "csv", "txt", "lst", "wav", "yaml")
    for name in (f"pointer.{suffix}" for suffix in suffixes):
        (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    voice_ND = load_preset(mini_release, "en_male_1")
    write_preset(folder / "preset.pt", voice_ND)
    torch.save(voice_ND, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    save_file({"embedding": voice_ND}, folder / "mlx.safetensors")
    encoder = packaged_encoder(mini_release)
    assert encoder is not None
    shutil.copy(encoder, folder / "encoder.safetensors")
    state = load_file(encoder)
    next(iter(state.values())).view(-1)[3] = torch.nan
    save_file(state, folder / "nan.safetensors")
    shutil.copy(OLD_VOICE, folder / "old.voice.safetensors")
    write_voice(folder / "anna.voice.safetensors", mini_release)
    return folder


def write_voice(path: Path, release: Release) -> None:
    codes_KT = torch.stack([torch.arange(40) % size for size in codebook_sizes(release.params)])
    metadata = VoiceMetadata(
        name="anna", consent=Consent(kind="synthetic", statement="made here"), encoder_hash="0",
        table_hash=tensor_hash(load_table(release)), codebook_hash=codebook_hash(release),
        reference_seconds=3.2, reference_hash="0", tool="a test",
    )  # fmt: skip
    Voice(codes_KT, voice_embedding(codes_KT, release), metadata).save(path)


def content(folder: Path) -> dict[str, tuple[int, ...]]:
    """Everything in a folder; a file that is written, or replaced, has other numbers."""
    found = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        found[str(path)] = (info.st_ino, info.st_size, info.st_mtime_ns)
    return found


def test_the_table_has_enough_cases() -> None:
    found = cases()
    assert len(found) >= 150 and len({arguments for *_, arguments in found}) == len(found)


def test_every_wrong_use_is_one_sentence_with_its_code(
    desk: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    before, failed = content(desk), []
    for code, words, arguments in cases():
        given = [word.format_map(MORE) for word in shlex.split(arguments)]
        found, _, error = command(*given)
        try:
            assert found == code and words in sentence(error)
        except AssertionError:
            failed.append(f"{arguments}: {found} instead of {code}, {words!r} in {error!r}")
        after = content(desk)
        if after != before:
            failed.append(f"{arguments}: changes {sorted(dict(after.items() ^ before.items()))}")
            before = after
    assert not failed, "\n".join(failed)
