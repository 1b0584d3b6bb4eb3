"""A release with an encoder: what is in it, what is refused, and that nothing else ever changes."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recipes.mini_release.layout import to_json
from tests.helpers.tiny_release import (
    preset_embedding,
    random_entries,
    tiny_params,
    write_encoder,
    write_tiny_release,
)
from tests.release.real_params import REAL
from voxclone import io
from voxclone.errors import QualityError, ReleaseError, UsageError, VoiceError, VoxcloneError
from voxclone.io import leftovers
from voxclone.release import inject as injection
from voxclone.release import proof
from voxclone.release.encoder_file import open_external_encoder, save_encoder
from voxclone.release.inject import MERGED, SHARD, inject, plan_injection
from voxclone.release.inspection import inspect_release
from voxclone.release.params import parse_params
from voxclone.release.presets import read_preset, write_preset
from voxclone.release.release import Release, load_codec
from voxclone.release.safetensors import INDEX, read_header
from voxclone.release.safetensors_writer import Entry, write_safetensors
from voxclone.release.tensors import Shapes, encoder_tensors, expected_tensors, is_encoder

LIMIT_MIB = 500


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_release(tmp_path / "release")


@pytest.fixture
def encoder(folder: Path) -> Path:
    """An encoder with provenance; its tensors were fp32."""
    release = Release.open(folder)
    return save(folder.parent / "encoder.safetensors", release)


def save(path: Path, release: Release, seed: int = 1) -> Path:
    entries = random_entries(encoder_tensors(release.params), seed, torch.float32)
    save_encoder(path, {each.name: each.make() for each in entries}, release, {"step": 3})
    return path


def run(encoder: Path, folder: Path, out: Path, **options: Any) -> injection.Injected:
    release = Release.open(folder)
    return inject(plan_injection(release, open_external_encoder(encoder, release), out, **options))


def state(folder: Path) -> dict[str, tuple[str, int]]:
    """SHA-256 and time of change of every file."""
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def tensors(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every tensor as a reader with vLLM's rule finds it, read without the project's own code."""
    index = folder / INDEX
    where = json.loads(index.read_text())["weight_map"] if index.exists() else None
    found: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    names = set(where.values()) if where else {p.name for p in folder.glob("consolidated*.saf*")}
    for name in sorted(names):
        data = (folder / name).read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        for tensor, entry in json.loads(data[8:start]).items():
            if tensor == "__metadata__" or (where and where.get(tensor) != name):
                continue
            assert tensor not in found
            first, last = entry["data_offsets"]
            content = data[start + first : start + last]
            found[tensor] = (entry["dtype"], tuple(entry["shape"]), content)
    return found


def check(folder: Path, out: Path, encoder: Path) -> None:
    """`out` is `folder` and the encoder, in bf16, and nothing besides."""
    before, after, external = tensors(folder), tensors(out), Release.open(folder)
    ours = {name: after.pop(name) for name in list(after) if is_encoder(name)}
    assert after == {name: t for name, t in before.items() if not is_encoder(name)}
    loaded = open_external_encoder(encoder, external)
    assert list(ours) and ours.keys() == encoder_tensors(external.params).keys()
    for name, (dtype, shape, content) in ours.items():
        expected = loaded.load(name).to(torch.bfloat16)
        assert (dtype, shape) == ("BF16", tuple(expected.shape))
        assert content == expected.view(torch.uint8).numpy().tobytes()
    found, old = inspect_release(Release.open(out)), inspect_release(Release.open(folder))
    assert found.encoder == "complete" and set(found.problems) <= set(old.problems)


@pytest.mark.parametrize("merge", [False, True])
def test_an_encoder_is_put_beside_or_into_a_release(folder: Path, encoder: Path, merge: bool):
    (folder / "README.md").write_text("the card")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").write_text("what a downloader keeps")
    before, out = state(folder), folder.parent / "out"
    done = run(encoder, folder, out, merge=merge)
    check(folder, out, encoder)
    assert state(folder) == before
    written = {MERGED} if merge else {SHARD}
    assert {path.name for path in out.glob("consolidated*")} == written | {MERGED}
    assert set(done.written) == written and not done.copied
    for name in done.linked:
        assert os.path.samefile(folder / name, out / name)
        assert done.sha256[name] == before[name][0]
    assert len(done.linked) == len(before) - 1 - merge  # all but the hidden one
    assert not (out / ".cache").exists() and not leftovers(out)
    assert done.tensors == len(expected_tensors(tiny_params()))
    wave_BS = torch.ones(1, 700)
    codec = load_codec(Release.open(out))
    assert torch.equal(
        codec.latents(wave_BS), load_codec(Release.open(folder), encoder).latents(wave_BS)
    )


def test_the_metadata_of_the_encoder_stay_with_it(folder: Path, encoder: Path) -> None:
    metadata = read_header(encoder).metadata
    assert metadata["codebook_sha256"]
    run(encoder, folder, folder.parent / "out")
    assert read_header(folder.parent / "out" / SHARD).metadata == metadata
    run(encoder, folder, folder.parent / "one", merge=True)
    merged = read_header(folder.parent / "one" / MERGED).metadata
    assert merged == {f"encoder.{key}": text for key, text in metadata.items()}
    again = run(folder.parent / "out" / SHARD, folder, folder.parent / "again")
    assert again.tensors and tensors(folder.parent / "again") == tensors(folder.parent / "out")


@pytest.mark.parametrize("reason", ["asked", errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_where_there_are_no_links_there_are_copies(
    folder: Path, encoder: Path, reason: str | int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        assert reason != "asked"
        raise OSError(reason, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    before, out = state(folder), folder.parent / "out"
    done = run(encoder, folder, out, copy=reason == "asked")
    check(folder, out, encoder)
    assert state(folder) == before and not done.linked and len(done.copied) == len(before)
    for name in done.copied:
        assert not os.path.samefile(folder / name, out / name)
    shutil.rmtree(folder)
    assert Release.open(out).report.encoder == "complete"


def test_files_of_the_hubs_cache_are_links_to_somewhere_else(folder: Path, encoder: Path) -> None:
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        path.rename(blobs / path.name)
        path.symlink_to(blobs / path.name)
    out = folder.parent / "out"
    run(encoder, folder, out)
    check(folder, out, encoder)
    assert not any(path.is_symlink() for path in out.rglob("*"))


def write_sharded(folder: Path, with_encoder: bool = False) -> dict[str, Any]:
    """Two files and an index of what is where; a third file that the index does not name."""
    params = tiny_params()
    shapes = expected_tensors(params) | (encoder_tensors(params) if with_encoder else {})
    (folder / MERGED).unlink()
    names = sorted(shapes)
    halves = {"consolidated-00001.safetensors": names[::2],
              "consolidated-00002.safetensors": names[1::2]}  # fmt: skip
    for file, own in halves.items():
        entries = random_entries({name: shapes[name] for name in own})
        write_safetensors(folder / file, entries, {"format": "pt"})
    write_safetensors(
        folder / "consolidated-old.safetensors", random_entries({"norm.weight": (28,)})
    )
    where = {name: file for file, own in halves.items() for name in own}
    size = sum(
        t.stop - t.start for file in halves for t in read_header(folder / file).tensors.values()
    )
    index = {"metadata": {"total_size": size, "by": "us"}, "weight_map": where}
    (folder / INDEX).write_text(json.dumps(index))
    return index


def test_an_index_stays_true(folder: Path, encoder: Path) -> None:
    index, out = write_sharded(folder), folder.parent / "out"
    before = state(folder)
    done = run(encoder, folder, out)
    check(folder, out, encoder)
    assert state(folder) == before and set(done.written) == {SHARD, INDEX}
    made = json.loads((out / INDEX).read_text())
    assert {n: f for n, f in made["weight_map"].items() if f != SHARD} == index["weight_map"]
    size = sum(len(content) for _, _, content in tensors(out).values())
    assert made["metadata"] == {"total_size": size, "by": "us"}


def test_merging_shards_needs_no_index(folder: Path, encoder: Path) -> None:
    write_sharded(folder)
    release, out = Release.open(folder), folder.parent / "out"
    plan = plan_injection(release, open_external_encoder(encoder, release), out, merge=True)
    assert plan.left_out == ("consolidated-old.safetensors", INDEX)
    inject(plan)
    check(folder, out, encoder)
    assert [path.name for path in out.glob("consolidated*")] == [MERGED]
    assert read_header(out / MERGED).metadata["format"] == "pt"


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("kind", ["one file", "own file", "shards", "partial"])
def test_an_encoder_is_replaced_only_when_asked(
    kind: str, merge: bool, folder: Path, encoder: Path
) -> None:
    if kind == "one file":
        shutil.rmtree(folder)
        write_tiny_release(folder, with_encoder=True)
    elif kind == "own file":
        write_encoder(folder / SHARD, tiny_params())
    elif kind == "shards":
        write_sharded(folder, with_encoder=True)
    else:
        shapes = dict(list(encoder_tensors(tiny_params()).items())[:5])
        shapes["audio_tokenizer.encoder_blocks.9.odd"] = (3,)
        write_safetensors(folder / "consolidated-half.safetensors", random_entries(shapes))
    out, before = folder.parent / "out", state(folder)
    with pytest.raises(ReleaseError, match="encoder already: `--replace`"):
        run(encoder, folder, out, merge=merge)
    run(encoder, folder, out, merge=merge, replace=True)
    check(folder, out, encoder)
    assert state(folder) == before
    if kind in ("own file", "partial"):
        assert not (out / "consolidated-half.safetensors").exists()
        assert os.path.samefile(folder / MERGED, out / MERGED) is not merge


def test_a_file_in_the_encoders_place_is_not_overwritten(folder: Path, encoder: Path) -> None:
    write_sharded(folder)
    (folder / "consolidated-old.safetensors").rename(folder / SHARD)
    with pytest.raises(ReleaseError, match="holds more than an encoder, but has the name"):
        run(encoder, folder, folder.parent / "out")
    run(encoder, folder, folder.parent / "out", merge=True)
    check(folder, folder.parent / "out", encoder)


def change(shapes: Shapes, kind: str) -> None:
    first = next(iter(shapes))
    if kind == "one missing":
        del shapes[first]
    elif kind == "one alone":
        for name in list(shapes)[1:]:
            del shapes[name]
    elif kind == "misshapen":
        shapes[first] = (*shapes[first][:-1], shapes[first][-1] + 1)
    elif kind == "unknown":
        shapes["audio_tokenizer.encoder_blocks.9.x"] = (2,)
    elif kind == "optimizer":
        shapes["optimizer.step"] = (1,)
    else:
        shapes.clear()
        shapes["norm.weight"] = (28,)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("one missing", "is missing"),
        ("one alone", "is missing"),
        ("misshapen", "instead of"),
        ("unknown", "is not part of a release"),
        ("optimizer", "is not of a codec encoder"),
        ("none", "holds no tensor of a codec encoder"),
    ],
)
@pytest.mark.parametrize("layout", ["safetensors", "pt"])
def test_unfit_encoders_are_refused(layout: str, kind: str, sentence: str, folder: Path) -> None:
    shapes = encoder_tensors(tiny_params())
    change(shapes, kind)
    entries = random_entries(shapes)
    path = folder.parent / f"unfit.{layout}"
    if layout == "pt":
        cut = "audio_tokenizer."
        torch.save({each.name.removeprefix(cut): each.make() for each in entries}, path)
    else:
        write_safetensors(path, entries)
    with pytest.raises(ReleaseError, match=sentence) as caught:
        open_external_encoder(path, Release.open(folder))
    assert str(path) in str(caught.value)


def test_values_that_are_not_finite_are_refused(folder: Path) -> None:
    entries = random_entries(encoder_tensors(tiny_params()), dtype=torch.float32)
    for bad in (float("nan"), float("inf"), 3.4e38):  # the last is finite in fp32 alone
        name, value = entries[7].name, entries[7].make()
        value.view(-1)[3] = bad
        spoiled = [each if each.name != name else each._replace(make=lambda v=value: v)
                   for each in entries]  # fmt: skip
        path = folder.parent / "bad.safetensors"
        write_safetensors(path, spoiled)
        with pytest.raises(ReleaseError, match="not finite"):
            run(path, folder, folder.parent / "out")
        assert sorted(p.name for p in folder.parent.iterdir()) == ["bad.safetensors", "release"]


def test_a_release_with_weights_that_are_not_finite_is_refused(folder: Path) -> None:
    shapes = expected_tensors(tiny_params())
    entries = random_entries(shapes)
    name, value = entries[3].name, entries[3].make().clone()
    value.view(-1)[3] = float("nan")
    spoiled = [each if each.name != name else each._replace(make=lambda: value) for each in entries]
    write_safetensors(folder / MERGED, spoiled)
    path = save(folder.parent / "e.safetensors", Release.open(folder))
    with pytest.raises(ReleaseError, match="not finite"):
        run(path, folder, folder.parent / "out")
    assert not (folder.parent / "out").exists()


def test_a_release_with_a_preset_that_is_not_finite_is_refused(folder: Path, encoder: Path) -> None:
    path = next((folder / "voice_embedding").glob("*.pt"))
    voice_ND = read_preset(path, tiny_params().lm.dim)
    voice_ND[1, 2] = float("nan")
    torch.save(voice_ND, path)
    with pytest.raises(VoiceError, match="not finite"):
        run(encoder, folder, folder.parent / "out")
    assert not (folder.parent / "out").exists()


def test_an_encoder_for_another_code_book_is_refused(folder: Path, tmp_path: Path) -> None:
    other = write_tiny_release(tmp_path / "other")
    shapes = expected_tensors(tiny_params())
    write_safetensors(other / MERGED, random_entries(shapes, seed=5))
    path = save(tmp_path / "e.safetensors", Release.open(other))
    with pytest.raises(ReleaseError, match="trained for another codebook"):
        run(path, folder, tmp_path / "out")


def test_damaged_releases_are_refused(folder: Path, encoder: Path) -> None:
    shapes = expected_tensors(tiny_params())
    for name, change_ in {
        "norm.weight is missing": lambda s: s.pop("norm.weight"),
        "is not part of a release": lambda s: s.update({"audio_tokenizer.alibi": (2,)}),
        "instead of": lambda s: s.update({"norm.weight": (29,)}),
    }.items():
        changed = dict(shapes)
        change_(changed)
        write_safetensors(folder / MERGED, random_entries(changed))
        with pytest.raises(ReleaseError, match=name):
            run(encoder, folder, folder.parent / "out")
    write_safetensors(folder / MERGED, random_entries(shapes))
    (folder / "link").symlink_to(folder / "nowhere")
    with pytest.raises(ReleaseError, match="a link to nothing"):
        run(encoder, folder, folder.parent / "out")
    (folder / "link").unlink()
    (folder / "link").symlink_to(folder)
    with pytest.raises(ReleaseError, match="second way"):
        run(encoder, folder, folder.parent / "out")
    assert not (folder.parent / "out").exists()


def test_places_that_cannot_be_used_are_refused_first(folder: Path, encoder: Path) -> None:
    there = folder.parent
    (there / "empty").mkdir()
    (there / "dangling").symlink_to(there / "nowhere")
    for name, sentence in {
        "empty": "exists already",
        "dangling": "exists already",
        "encoder.safetensors": "exists already",
        "none/out": "no directory",
        "release/out": "lies in the release",
        "release/voice_embedding/out": "lies in the release",
        "empty/../release/out": "lies in the release",
    }.items():
        with pytest.raises(UsageError, match=sentence):
            run(encoder, folder, there / name)
    (there / "alias").symlink_to(folder)
    with pytest.raises(UsageError, match="lies in the release"):
        run(encoder, folder, there / "alias" / "out")


def test_a_full_disk_is_an_error_before_anything_is_written(
    folder: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1000))
    with pytest.raises(ReleaseError, match=r"will need .* GB, but the disk has 0\.00 GB left"):
        run(encoder, folder, folder.parent / "out")


def test_a_copy_that_differs_is_found_and_removed(
    folder: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof reads what lies on the disk: flip a byte of whatever is written."""
    honest = io.pieces

    def flipping(*arguments: Any) -> Any:
        for piece in honest(*arguments):
            yield piece[:-1] + bytes([piece[-1] ^ 1])

    def spoiled(write: Callable[..., None]) -> Callable[..., None]:
        def spoil(*arguments: Any) -> None:
            with monkeypatch.context() as patch:
                patch.setattr(io, "pieces", flipping)
                patch.setattr(proof, "pieces", flipping)
                write(*arguments)

        return spoil

    for write in (io.copy_file, proof.copy_tensors):
        monkeypatch.setattr(injection, write.__name__, spoiled(write))
    before = state(folder)
    for options in ({"copy": True}, {"merge": True}):
        with pytest.raises(ReleaseError, match="is not what it was"):
            run(encoder, folder, folder.parent / "out", **options)
        assert sorted(p.name for p in folder.parent.iterdir()) == ["encoder.safetensors", "release"]
    assert state(folder) == before


def test_the_validator_is_given_the_file_that_will_be_shipped(folder: Path, encoder: Path) -> None:
    release = Release.open(folder)

    def refuse(path: Path) -> list[str]:
        assert load_codec(release, path).encoder is not None
        raise QualityError("no")

    plan = plan_injection(release, open_external_encoder(encoder, release), folder.parent / "out")
    with pytest.raises(QualityError):
        inject(plan, validate=refuse)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["encoder.safetensors", "release"]
    inject(plan, validate=lambda path: ["collapsed"])
    assert json.loads(read_header(plan.out / SHARD).metadata["failed_checks"]) == ["collapsed"]


# Interruption. A child process is stopped at one of its own file operations, which the
# interpreter announces (audit events), or by its parent at a moment.

WATCHED = ("open", "os.link", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir",
           "os.scandir", "shutil.rmtree")  # fmt: skip
DONE, REFUSED, BROKEN, UNHARMED = 0, 1, 2, 3


def prepared(encoder: Path, folder: Path, out: Path, **options: Any) -> Callable[[], object]:
    release = Release.open(folder)
    plan = plan_injection(release, open_external_encoder(encoder, release), out, **options)
    return lambda: inject(plan)


def child(work: Callable[[], object], at: int | None, how: str, under: Path) -> int:
    """Fork; the child does `work`, is killed or fails at its operation number `at` on files
    below `under`, and ends with DONE, REFUSED (a sentence), BROKEN (a trace), or UNHARMED: it did
    the work although an operation failed."""
    pid = os.fork()
    if pid:
        return pid
    seen = [0]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event not in WATCHED or not any(str(under) in str(a) for a in arguments):
            return
        seen[0] += 1
        if seen[0] == at:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, "No space left on device")

    result = BROKEN
    try:
        if at is not None:
            sys.addaudithook(hook)
        work()
        result = UNHARMED if at is not None and seen[0] >= at else DONE
    except VoxcloneError:
        result = REFUSED
    except BaseException as error:
        print(repr(error), file=sys.stderr)
    finally:
        os._exit(result)


def ended(pid: int) -> int | None:
    """Exit code of a child, or None if it was killed."""
    status = os.waitpid(pid, 0)[1]
    return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@needs_fork
@pytest.mark.parametrize(
    ("how", "options"),
    [
        ("killed", {}),
        ("failing", {}),
        pytest.param("killed", {"merge": True}, marks=pytest.mark.slow),
        pytest.param("failing", {"merge": True}, marks=pytest.mark.slow),
        pytest.param("killed", {"copy": True}, marks=pytest.mark.slow),
        pytest.param("failing", {"copy": True}, marks=pytest.mark.slow),
    ],
)
def test_interrupted_at_every_file_operation_there_is_no_out(
    folder: Path, encoder: Path, how: str, options: dict[str, bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(os, "fsync", lambda file: None)  # the machine itself goes on
    there = folder.parent
    before, codes, out = state(there), [], there / "out"
    work = prepared(encoder, folder, out, **options)
    for at in range(1, 1000):
        code = ended(child(work, at, how, there))
        codes.append(code)
        assert {name: s for name, s in state(there).items() if name in before} == before
        if code == DONE:
            break
        if code == UNHARMED:
            check(folder, out, encoder)
            shutil.rmtree(out)
            continue
        assert not out.exists(), at
        assert code == (None if how == "killed" else REFUSED), at
        for left in leftovers(out):
            assert how == "killed" and left.name.startswith(".out.")
            shutil.rmtree(left)
    assert len(codes) > 30 and codes.count(UNHARMED) < 8
    check(folder, out, encoder)


@needs_fork
@pytest.mark.parametrize("merge", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_killed_at_several_moments_there_is_no_out(
    folder: Path, encoder: Path, merge: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io, "CHUNK", 2048)  # many moments between two pieces
    there = folder.parent
    out, before = there / "out", state(there)
    began = time.perf_counter()
    assert ended(child(lambda: run(encoder, folder, out, merge=merge), None, "", there)) == DONE
    whole = time.perf_counter() - began
    shutil.rmtree(out)
    killed = 0
    for moment in range(15):
        pid = child(lambda: run(encoder, folder, out, merge=merge), None, "", there)
        time.sleep(whole * moment / 15)
        os.kill(pid, signal.SIGKILL)
        if ended(pid) is None:
            killed += 1
        if out.exists():  # it was quicker, or ended: then all of it is there
            check(folder, out, encoder)
            shutil.rmtree(out)
        for left in leftovers(out):
            shutil.rmtree(left)
        assert state(there) == before
    assert killed >= 5


def test_what_a_killed_run_left_does_not_stop_the_next(folder: Path, encoder: Path) -> None:
    left = folder.parent / ".out.0a1b.tmp"
    left.mkdir()
    os.link(folder / MERGED, left / MERGED)
    out = folder.parent / "out"
    assert leftovers(out) == [left] and leftovers(folder.parent / "ou") == []
    run(encoder, folder, out)
    check(folder, out, encoder)
    assert left.exists()  # perhaps of a run that still goes on


# Memory, in a process of its own.

PEAK = """
    import sys
    from pathlib import Path
    from voxclone.release.release import Release
    from voxclone.release.encoder_file import open_external_encoder
    from voxclone.release.inject import inject, plan_injection
    release = Release.open(sys.argv[1])
    encoder = open_external_encoder(Path(sys.argv[2]), release)
    inject(plan_injection(release, encoder, Path(sys.argv[3]), merge=True))
    # Not ru_maxrss: it begins with the peak of the process that started this one.
    status = dict(line.split(":") for line in open("/proc/self/status"))
    print(int(status["VmHWM"].split()[0]) // 1024)
"""


def peak_of_merging(folder: Path, encoder: Path, out: Path) -> int:
    """Peak of resident memory in MiB."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PEAK), str(folder), str(encoder), str(out)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout)


def write_hollow(path: Path, shapes: Shapes) -> None:
    """A safetensors file in bf16 whose data are a hole: it takes no room on the disk."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@on_linux
def test_merging_holds_no_large_tensor(folder: Path, encoder: Path) -> None:
    """Torch alone takes over 200 MiB: with a table of 374 MiB in memory it would be over."""
    values = to_json(tiny_params()) | {"vocab_size": 7_000_000}
    (folder / "params.json").write_text(json.dumps(values))
    write_hollow(folder / MERGED, expected_tensors(parse_params(values)))
    save(encoder, Release.open(folder))
    assert (folder / MERGED).stat().st_size > 370 * 2**20
    out = folder.parent / "out"
    peak = peak_of_merging(folder, encoder, out)
    assert (out / MERGED).stat().st_size > (folder / MERGED).stat().st_size
    assert peak < LIMIT_MIB
    shutil.rmtree(out)


@on_linux
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_merging_8_gb_takes_under_500_mb_of_memory(tmp_path: Path) -> None:
    params = parse_params(REAL)
    folder = tmp_path / "release"
    (folder / "voice_embedding").mkdir(parents=True)
    (folder / "params.json").write_text(json.dumps(REAL))
    (folder / "tekken.json").write_text("{}")
    write_hollow(folder / MERGED, expected_tensors(params))
    for name in params.voices:
        write_preset(folder / "voice_embedding" / f"{name}.pt", preset_embedding(name, 3, params))
    if shutil.disk_usage(tmp_path).free < 20e9:
        pytest.skip("needs 20 GB of the disk")
    encoder = tmp_path / "encoder.safetensors"
    shapes = encoder_tensors(params)
    write_safetensors(
        encoder,
        [Entry(n, torch.bfloat16, s, lambda s=s: torch.zeros(s, dtype=torch.bfloat16))
         for n, s in shapes.items()],
    )  # fmt: skip
    try:
        began = time.perf_counter()
        peak = peak_of_merging(folder, encoder, tmp_path / "out")
        print(f"\n8 GB merged in {time.perf_counter() - began:.0f} s, peak {peak} MiB")
        header = read_header(tmp_path / "out" / MERGED)
        assert len(header.tensors) == 500 and header.size > 8.3e9
        assert peak < LIMIT_MIB
    finally:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
