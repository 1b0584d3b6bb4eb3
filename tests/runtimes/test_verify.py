"""Every reason why a runtime would not speak with a voice is a sentence."""

import errno
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.helpers.tiny_release import tiny_params, write_encoder, write_tiny_release
from tests.runtimes.conftest import REAL_WIDTH, Example, make_example, make_voice, wide_params
from tests.runtimes.test_formats import out_for
from voxclone.errors import AudioError, QualityError, ReleaseError, UsageError, VoxcloneError
from voxclone.release.presets import write_preset
from voxclone.release.release import Release
from voxclone.runtimes.containers import read_embedding, read_raw, read_stored, read_torch
from voxclone.runtimes.export import export_voice
from voxclone.runtimes.reading import Reading
from voxclone.runtimes.reference import count_positions
from voxclone.runtimes.table import RUNTIMES
from voxclone.runtimes.verify import sentences, verify


def pt(out: Path) -> Path:
    return out / "voice_embedding" / "dora.pt"


def safetensors(out: Path) -> Path:
    return out / "voice_embedding" / "dora.safetensors"


def edit(path: Path, *keys: str) -> None:
    value = json.loads(path.read_text())
    inner = value
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    path.write_text(json.dumps(value))


def set_count(out: Path, count: int) -> None:
    value = json.loads((out / "tekken.json").read_text())
    value["audio"]["voice_num_audio_tokens"]["dora"] = count
    (out / "tekken.json").write_text(json.dumps(value))


def rewrite(path: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    write_preset(path, change(torch.load(path, weights_only=True)))


def save_view(path: Path) -> None:
    whole = torch.cat([torch.load(path, weights_only=True)] * 2)
    buffer = io.BytesIO()
    torch.save(whole[: len(whole) // 2], buffer)
    path.write_bytes(buffer.getvalue())


def save_under_own_name(path: Path) -> None:
    torch.save(torch.load(path, weights_only=True).clone(), path)


def compress(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def without_key(out: Path) -> None:
    rows = load_file(safetensors(out))["embedding"]
    save_file({"rows": rows, "codes": torch.zeros(2, 2)}, safetensors(out))


VOICES = ("multimodal", "audio_tokenizer_args", "voice", "dora")
COUNTS = ("audio", "voice_num_audio_tokens", "dora")
DAMAGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "not in the map": ("vllm-omni", lambda o: edit(o / "params.json", *VOICES), "not offered"),
    "not counted": ("vllm-omni", lambda o: edit(o / "tekken.json", *COUNTS), "mistral-common"),
    "another count": ("vllm-omni", lambda o: set_count(o, 40), "40 positions for 41 frames"),
    "no file": ("vllm-omni", lambda o: pt(o).unlink(), "no such file"),
    "no END frame": ("vllm-omni", lambda o: rewrite(pt(o), lambda r: r.flip(0)), "END frame"),
    "a view, to torch": ("vllm-omni", lambda o: save_view(pt(o)), "view"),
    "a view, to C": ("voxtral-tts.c", lambda o: save_view(pt(o)), "all 82 frames"),
    "zip root": ("voxtral-tts.c", lambda o: save_under_own_name(pt(o)), "without a voice"),
    "compressed": ("voxtral-tts.c", lambda o: compress(pt(o)), "without a voice"),
    "few frames": ("voxtral-tts.c", lambda o: rewrite(pt(o), lambda r: r[-9:]), "65536"),
    "no file in C": ("voxtral-tts.c", lambda o: pt(o).unlink(), "without a voice"),
    "shards in C": (
        "voxtral-tts.c",
        lambda o: (o / "consolidated.safetensors").rename(o / "consolidated-1.safetensors"),
        "only file",
    ),
    "no safetensors": ("mlx-audio", lambda o: safetensors(o).unlink(), "silently"),
    "no config": ("mlx-audio", lambda o: (o / "config.json").unlink(), "config.json"),
    "count in mlx": ("mlx-audio", lambda o: set_count(o, 50), "50 positions for 41 frames: "),
    "no key": ("mlx-audio", without_key, "any may be taken"),
    "several in rs": ("voxtral_tts_rs", without_key, "any of them"),
    "new name as pt": ("voxtral_tts_rs", lambda o: safetensors(o).unlink(), "not found"),
    "not finite": (
        "mlx-audio",
        lambda o: save_file({"embedding": torch.full((41, REAL_WIDTH), torch.nan).bfloat16()},
                            safetensors(o)),
        "not finite",
    ),
    "narrow": (
        "mlx-audio",
        lambda o: save_file({"embedding": torch.zeros(41, 8).bfloat16()}, safetensors(o)),
        "frames of 3072",
    ),
    "encoder in mlx": (
        "mlx-audio",
        lambda o: write_encoder(o / "consolidated-encoder.safetensors", wide_params()),
        "refused on loading",
    ),
    "file of C by another": ("comfyui", lambda o: None, "preset names only"),
    "peer differs": (
        "executorch",
        lambda o: rewrite(o / "dora.pt", lambda r: r[1:]),
        "by name",
    ),
    "cut bin": (
        "executorch",
        lambda o: (o / "dora.bin").write_bytes((o / "dora.bin").read_bytes()[:-1]),
        "16 bits",
    ),
    "pt by faster": (
        "faster-voxtral",
        lambda o: (o / "dora.pt").write_bytes((o / "dora.pt").read_bytes()[:-4]),
        "damaged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGES)
def test_every_damage_gets_a_sentence(case: str, wide: Example, tmp_path: Path) -> None:
    runtime, damage, word = DAMAGES[case]
    out = tmp_path / "out"
    written = "mlx-audio" if RUNTIMES[runtime].input == "release" else runtime
    export_voice(wide.voice, RUNTIMES[written], wide.release, out)
    damage(out)
    (reading,) = verify(RUNTIMES[runtime], out, wide.release, name="dora")
    assert not reading.usable
    assert any(word in problem for problem in reading.problems), reading.problems
    for problem in reading.problems:
        assert problem.endswith(".") and len(problem.splitlines()) == 1, problem


@pytest.mark.parametrize("damage", ["empty", "half", "last byte", "text"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_bad_files_of_every_format_get_a_sentence(
    runtime: str, damage: str, wide: Example, tmp_path: Path
) -> None:
    out = out_for(runtime, tmp_path)
    preset = "casual_male" if runtime == "comfyui" else None
    export_voice(wide.voice, RUNTIMES[runtime], wide.release, out, replace_preset=preset)
    name, suffix = preset or "dora", RUNTIMES[runtime].suffix
    folder = {"release": out / "voice_embedding", "voices": out, "file": out.parent}
    path = folder[RUNTIMES[runtime].input] / f"{name}{suffix}"
    content = path.read_bytes()
    damaged = {"empty": b"", "half": content[: len(content) // 2], "last byte": content[:-1],
               "text": b"I am a voice, I promise.\n" * 4001}[damage]  # fmt: skip
    path.write_bytes(damaged)
    one = None if RUNTIMES[runtime].input == "file" else name
    (reading,) = verify(RUNTIMES[runtime], out, wide.release, name=one)
    assert not reading.usable and reading.problems
    assert all(len(sentence.splitlines()) == 1 for sentence in sentences(reading))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(["pt", "safetensors", "bin"]),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    near_end=st.booleans(),
    cut=st.sampled_from([1.0, 1.0, 0.999, 0.9, 0.3, 0.0]),
)
def test_damaged_files_never_raise(
    kind: str, edits: list[tuple[float, int]], near_end: bool, cut: float, tmp_path: Path
) -> None:
    path = tmp_path / f"v.{kind}"
    embedding_ND = torch.arange(12 * REAL_WIDTH).view(12, REAL_WIDTH).bfloat16()
    if kind == "pt":
        write_preset(path, embedding_ND)
    elif kind == "safetensors":
        save_file({"embedding": embedding_ND}, path)
    else:
        path.write_bytes(embedding_ND.view(torch.uint8).numpy().tobytes())
    content = bytearray(path.read_bytes())
    span = min(1500, len(content)) if kind != "safetensors" or near_end else 120
    for place, value in edits:  # headers and directories, where a byte matters
        offset = round(place * (span - 1))
        content[-1 - offset if near_end else offset] = value
    path.write_bytes(content[: round(cut * len(content))])
    readers = {
        "pt": (lambda: read_torch(path, REAL_WIDTH), lambda: read_stored(path, REAL_WIDTH)),
        "safetensors": (lambda: read_embedding(path),),
        "bin": (lambda: read_raw(path, REAL_WIDTH, (6,)),),
    }
    for read in readers[kind]:
        found_ND, problems = read()
        assert (found_ND is not None) or problems


def test_a_release_that_holds_a_part_of_an_encoder(tmp_path: Path) -> None:
    folder = write_tiny_release(tmp_path / "model", with_encoder=True)
    path = folder / "consolidated.safetensors"
    tensors = load_file(path)
    del tensors["audio_tokenizer.input_proj.conv.parametrizations.weight.original0"]
    save_file(tensors, path)
    release = Release.open(folder)
    voice = make_voice(release, tmp_path / "dora.voice.safetensors")
    with pytest.raises(QualityError, match="random numbers"):
        export_voice(voice, RUNTIMES["vllm-omni"], release, tmp_path / "out")
    with pytest.raises(UsageError, match="refuses the codec encoder"):
        export_voice(voice, RUNTIMES["mlx-audio"], release, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_context_without_room_for_speech(tiny: Example, tmp_path: Path) -> None:
    voice = make_voice(tiny.release, tmp_path / "long.voice.safetensors", 4080)
    with pytest.raises(QualityError, match="no room"):
        export_voice(voice, RUNTIMES["vllm-omni"], tiny.release, tmp_path / "out")


def test_programs_for_the_real_width_say_so(tiny: Example, tmp_path: Path) -> None:
    for runtime in ("voxtral-tts.c", "faster-voxtral"):
        with pytest.raises(QualityError, match="width 3072"):
            export_voice(tiny.voice, RUNTIMES[runtime], tiny.release, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []


NAMES = {
    "upper case": ("vllm-omni", "Dora", None, "lower case"),
    "default": ("vllm-omni", "default", None, "none"),
    "taken": ("vllm-omni", "anna", None, "already"),
    "an alias": ("voxtral_tts_rs", "Alloy", None, "neutral_female"),
    "no preset of theirs": ("voxtral_tts_rs", None, "anna", "casual_male"),
    "no preset": ("vllm-omni", None, "casual_male", "anna, bert"),
    "a new name for nodes": ("comfyui", None, None, "--replace-preset"),
    "no file name": ("mlx-audio", "../dora", None, "name of a file"),
    "both": ("vllm-omni", "emil", "anna", "either"),
    "nothing to replace": ("codes", None, "anna", "no release"),
}


@pytest.mark.parametrize("case", NAMES)
def test_names_that_cannot_be(case: str, tiny: Example, tmp_path: Path) -> None:
    runtime, name, preset, word = NAMES[case]
    with pytest.raises(UsageError, match=word):
        export_voice(tiny.voice, RUNTIMES[runtime], tiny.release, tmp_path / "out",
            name=name, replace_preset=preset,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be(tiny: Example, tmp_path: Path) -> None:
    taken, text = tmp_path / "taken", tmp_path / "text"
    taken.mkdir()
    text.write_text("mine")
    inside = tiny.release.path
    cases = [
        ("vllm-omni", taken, "exists"),
        ("vllm-omni", text, "exists"),
        ("vllm-omni", tmp_path / "no" / "where", "no directory"),
        ("vllm-omni", inside, "never written"),
        ("mlx-voxtral-swift", inside / "voice_embedding" / "x.safetensors", "never written"),
        ("mlx-voxtral-swift", tmp_path / "x.pt", "safetensors"),
        ("codes", tmp_path / "no" / "x.safetensors", "no directory"),
        ("executorch", text, "is a file"),
    ]
    for runtime, out, word in cases:
        with pytest.raises(UsageError, match=word):
            export_voice(tiny.voice, RUNTIMES[runtime], tiny.release, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken", "text"]
    assert text.read_text() == "mine" and not list(taken.iterdir())


@pytest.mark.parametrize("runtime", ["vllm-omni", "mlx-voxtral-swift", "executorch"])
def test_an_interruption_leaves_nothing(
    runtime: str, tiny: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> Reading:
        raise KeyboardInterrupt

    monkeypatch.setattr("voxclone.runtimes.export.read_voice", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_voice(tiny.voice, RUNTIMES[runtime], tiny.release, out_for(runtime, tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("runtime", ["vllm-omni", "mlx-voxtral-swift", "executorch"])
def test_a_disk_that_refuses_leaves_what_was_there(
    runtime: str, tiny: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> Reading:
        raise OSError(errno.ENOSPC, "No space left on device")

    out = out_for(runtime, tmp_path)
    if RUNTIMES[runtime].input != "release":
        export_voice(tiny.voice, RUNTIMES[runtime], tiny.release, out)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other = make_voice(tiny.release, tmp_path / "other.voice.safetensors", 20)
    (tmp_path / "other.voice.safetensors").unlink()
    monkeypatch.setattr("voxclone.runtimes.export.read_voice", full)
    with pytest.raises(ReleaseError, match=r"the disk is full\. Nothing of it"):
        export_voice(other, RUNTIMES[runtime], tiny.release, out)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not list(tmp_path.rglob(".*"))


def test_a_folder_of_voices_keeps_the_others(tiny: Example, tmp_path: Path) -> None:
    out = tmp_path / "voices"
    for name in ("one", "two"):
        export_voice(tiny.voice, RUNTIMES["executorch"], tiny.release, out, name=name)
    with pytest.raises(QualityError, match="width"):
        export_voice(tiny.voice, RUNTIMES["faster-voxtral"], tiny.release, out, name="three")
    readings = verify(RUNTIMES["executorch"], out, tiny.release)
    assert sorted(path.name for path in out.iterdir()) == ["one.bin", "one.pt", "two.bin", "two.pt"]
    assert [reading.name for reading in readings] == ["one", "two"]
    assert all(reading.usable for reading in readings)


def test_the_folder_that_one_is_in(
    tiny: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    export_voice(tiny.voice, RUNTIMES["executorch"], tiny.release, Path())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dora.bin", "dora.pt"]
    with pytest.raises(UsageError, match="exists"):
        export_voice(tiny.voice, RUNTIMES["vllm-omni"], tiny.release, Path())


def test_files_are_copied_where_they_cannot_be_linked(
    tiny: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr("os.link", refused)
    out = tmp_path / "out"
    export_voice(tiny.voice, RUNTIMES["vllm-omni"], tiny.release, out)
    own, theirs = out / "consolidated.safetensors", tiny.release.path / "consolidated.safetensors"
    assert own.stat().st_ino != theirs.stat().st_ino
    assert own.read_bytes() == theirs.read_bytes()


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Release:
    folder = tmp_path_factory.mktemp("complete") / "model"
    return Release.open(write_tiny_release(folder, with_encoder=True))


# The tiny release has 100 frames of 240 samples a second, so other lengths than the real one's.
MISCOUNTED = next(
    n for n in range(240, 10**6, 240) if count_positions(n, 24000, 100.0) > n // 240 + 1
)
CLIPS = {
    "good": (24000, 24000, 1, None),
    "a miscounted length": (MISCOUNTED, 24000, 1, "drop or add one sample"),
    "stereo": (24000, 24000, 2, "2 channels"),
    "too long": (24000 * 41, 24000, 1, "no room"),
}


@pytest.mark.parametrize("case", CLIPS)
def test_recordings_as_ref_audio(case: str, complete: Release, tmp_path: Path) -> None:
    samples, rate, channels, word = CLIPS[case]
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.zeros((samples, channels), np.float32), rate)
    (reading,) = verify(RUNTIMES["vllm-omni"], path, complete)
    if word is None:
        assert reading.usable and reading.frames == reading.positions
    else:
        assert not reading.usable and any(word in problem for problem in reading.problems), (
            reading.problems
        )


def test_recordings_need_an_encoder_and_are_recordings(tiny: Example, tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.zeros(22050, np.float32), 22050)
    (reading,) = verify(RUNTIMES["vllm-omni"], path, tiny.release)
    assert not reading.usable and reading.frames == reading.positions == 101
    path.write_text("not a sound")
    with pytest.raises(AudioError, match="no recording"):
        verify(RUNTIMES["vllm-omni"], path, tiny.release)


def test_other_places_for_verify(tiny: Example, tmp_path: Path) -> None:
    for runtime, path, word in [
        ("mlx-voxtral-swift", tmp_path, "reads a file"),
        ("voxtral-tts.c", tiny.file, "release folder"),
        ("executorch", tiny.file, "folder of voices"),
        ("executorch", tmp_path, "no voice"),
    ]:
        with pytest.raises(UsageError, match=word):
            verify(RUNTIMES[runtime], path, tiny.release)
    with pytest.raises(VoxcloneError, match=r"params\.json"):
        verify(RUNTIMES["voxtral-tts.c"], tmp_path, tiny.release)


def test_codes_of_another_release_are_refused(tiny: Example, tmp_path: Path) -> None:
    out = tmp_path / "dora.safetensors"
    export_voice(tiny.voice, RUNTIMES["codes"], tiny.release, out)
    other = make_example(tmp_path / "other", tiny_params(acoustic_dim=4))
    (reading,) = verify(RUNTIMES["codes"], out, other.release)
    assert "codebooks" in reading.problems[0]
    codes = load_file(out)["codes"]
    assert torch.equal(codes.T.long(), tiny.voice.source.codes_KT)
    for bad in (codes - 1, codes * 30, codes.float()):
        save_file({"codes": bad}, out)
        (reading,) = verify(RUNTIMES["codes"], out, tiny.release)
        assert not reading.usable
    shutil.rmtree(tmp_path / "other")
