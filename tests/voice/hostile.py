"""Files that are no voices, by kind, drawn from a seed; and a program that loads such files.

They are made in one process and loaded in another, so that its memory is the loader's alone.
"""

import json
import os
import pickle
import random
import resource
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

MARKER = "harm-was-done"

HOSTILE_VALUES: list[Any] = [
    None, True, -1, 10**40, 1e308, float("nan"), float("-inf"), "", "\x1b]0;x\x07", "\u202eevil",
    "../../etc/passwd", "a" * 5000, [], {}, [[[[]]]], {"kind": "self"}, "unstated",
    "voxclone.voice/999", "voxclone.voice/1", "voxclone.voice/2", "\ud800", ["x"] * 500,
]  # fmt: skip


class Gadget:
    """Makes a file when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.folder / MARKER),)


def metadata() -> dict[str, Any]:
    consent = {"kind": "self", "statement": "I agree.", "date": "2026-01-01"}
    return {
        "format": "voxclone.voice/3", "name": "anna", "consent": consent, "encoder_hash": "e",
        "table_hash": "t", "codebook_hash": "b", "reference_seconds": 4.0, "reference_hash": "r",
        "preprocessing": {"source": "a.wav", "parts": []}, "similarity": {"ge2e": 0.5},
        "tool": "voxclone test",
    }  # fmt: skip


def packed(header: bytes, data: bytes, length: int | None = None) -> bytes:
    size = len(header) if length is None else length
    return (size % 2**64).to_bytes(8, "little") + header + data


def built(
    codes: tuple[int, ...] = (7, 5), embedding: tuple[int, ...] = (6, 12), **changes: Any
) -> tuple[dict[str, Any], bytes]:
    """Header and data of a voice; `changes` override the metadata."""
    middle = 2 * codes[0] * codes[1]
    end = middle + 2 * embedding[0] * embedding[1]
    header = {
        "__metadata__": {"voxclone": json.dumps(metadata() | changes)},
        "codes": {"dtype": "I16", "shape": list(codes), "data_offsets": [0, middle]},
        "embedding": {"dtype": "BF16", "shape": list(embedding), "data_offsets": [middle, end]},
    }
    return header, bytes(end)


def text(header: Any) -> bytes:
    return json.dumps(header).encode()


def noise(rng: random.Random, folder: Path) -> bytes:
    return rng.randbytes(rng.randrange(4096))


def truncated(rng: random.Random, folder: Path) -> bytes:
    header, data = built()
    whole = packed(text(header), data)
    return whole[: rng.randrange(len(whole))]


def flipped(rng: random.Random, folder: Path) -> bytes:
    header, data = built()
    whole = bytearray(packed(text(header), data))
    for _ in range(rng.randint(1, 8)):
        whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
    return bytes(whole)


def lying_length(rng: random.Random, folder: Path) -> bytes:
    header, data = built()
    length = rng.choice([0, 1, 2**31, 2**63, 2**64 - 1, rng.randrange(2**64), rng.randrange(3000)])
    return packed(text(header), data, length)


def appended(rng: random.Random, folder: Path) -> bytes:
    header, data = built()
    return packed(text(header), data + bytes(rng.choice([1, 7, 4096, 2**20])))


def lying_shapes(rng: random.Random, folder: Path) -> bytes:
    header, data = built()
    entry = header[rng.choice(["codes", "embedding"])]
    odd = [0, -1, 1, 2**31, 2**62, 2**63, 2**64, 1.5, "5", None, [3], True]
    entry["shape"] = [rng.choice(odd) for _ in range(rng.randrange(6))]
    return packed(text(header), data)


def lying_offsets(rng: random.Random, folder: Path) -> bytes:
    header, data = built()
    entry = header[rng.choice(["codes", "embedding"])]
    entry["data_offsets"] = [rng.choice([0, 1, 70, -2, 2**63, len(data), 2**70]) for _ in range(2)]
    return packed(text(header), data)


def odd_dtypes(rng: random.Random, folder: Path) -> bytes:
    header, data = built()
    dtype = rng.choice(["F32", "BF16", "I16", "U8", "F8_E4M3", "", "object", None, 7, ["I16"]])
    header[rng.choice(["codes", "embedding"])]["dtype"] = dtype
    header["codes"]["data_offsets"][0] = rng.choice([0, 0, 8])
    if rng.random() < 0.5:
        header["embedding"]["dtype"] = "F16"
    return packed(text(header), data)


def twice_named(rng: random.Random, folder: Path) -> bytes:
    header, data = built()
    name = rng.choice(["codes", "embedding", "__metadata__"])
    inner = text(header)[1:-1]
    return packed(b"{" + inner + b"," + text({name: header[name]})[1:-1] + b"}", data)


def more_tensors(rng: random.Random, folder: Path) -> bytes:
    header, data = built()
    for number in range(rng.choice([1, 2, 500])):
        header[f"extra{number}"] = {"dtype": "U8", "shape": [0], "data_offsets": [len(data)] * 2}
    return packed(text(header), data)


def odd_metadata(rng: random.Random, folder: Path) -> bytes:
    values = metadata()
    for _ in range(rng.randint(1, 3)):
        place = values if rng.random() < 0.7 else values["consent"]
        if not isinstance(place, dict) or not place:
            break
        key = rng.choice(list(place))
        if rng.random() < 0.3:
            del place[key]
        else:
            place[key] = rng.choice(HOSTILE_VALUES)
        if "consent" not in values:
            break
    header, data = built()
    header["__metadata__"]["voxclone"] = json.dumps(values)
    return packed(text(header), data)


def odd_reports(rng: random.Random, folder: Path) -> bytes:
    keys = ["source", "parts", "actions", "duration_in", "snr_db", "unity", "x"]
    report = {rng.choice(keys): rng.choice(HOSTILE_VALUES) for _ in range(rng.randint(1, 6))}
    header, data = built(preprocessing=report)
    return packed(text(header), data)


def no_metadata(rng: random.Random, folder: Path) -> bytes:
    header, data = built()
    odd = ["", "{", "null", "7", '"x"', "[" * 30_000, '{"a":' * 9_000, "9" * 60_000, "[]", "\x00"]
    header["__metadata__"] = rng.choice(
        [{"voxclone": rng.choice(odd)}, {}, None, [], {"voxclone": 7}, {"voxclone": None}]
    )
    return packed(text(header), data)


def no_numbers(rng: random.Random, folder: Path) -> bytes:
    header, data = built()
    middle = header["codes"]["data_offsets"][1]
    if rng.random() < 0.5:
        value = rng.choice([b"\x80\x7f", b"\x80\xff", b"\xc0\x7f"])  # infinities, not a number
        return packed(text(header), data[:middle] + value * ((len(data) - middle) // 2))
    return packed(text(header), b"\xff\xff" * (middle // 2) + data[middle:])  # codes of -1


def great_shapes(rng: random.Random, folder: Path) -> bytes:
    """Files that are what they say, and of sizes that no voice has."""
    codes, embedding = rng.choice(
        [((4_000_000, 1), (2, 1)), ((1, 1), (2, 2_000_000)), ((300, 4000), (4001, 900)),
         ((1, 4500), (4501, 3)), ((0, 5), (6, 12)), ((7, 0), (1, 12)), ((256, 4095), (4096, 1500))]
    )  # fmt: skip
    header, data = built(codes, embedding)
    return packed(text(header), data)


def pickled(rng: random.Random, folder: Path) -> bytes:
    return pickle.dumps(Gadget(folder), protocol=rng.randrange(6)) + bytes(rng.randrange(64))


def zipped(rng: random.Random, folder: Path) -> bytes:
    """As torch.save would write it."""
    path = folder / "gadget.zip"
    root = rng.choice(["archive", "voice_embed", "anna"])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{root}/data.pkl", pickle.dumps(Gadget(folder), rng.randrange(6)))
        archive.writestr(f"{root}/data/0", bytes(rng.randrange(999)))
    content = path.read_bytes()
    path.unlink()
    return content


def pickled_inside(rng: random.Random, folder: Path) -> bytes:
    header, data = built()
    code = pickle.dumps(Gadget(folder), protocol=0).decode("latin-1")
    place = rng.choice(["name", "tool", "voxclone", "__metadata__"])
    if place == "__metadata__":
        header["__metadata__"]["pickle"] = code
        return packed(text(header), pickle.dumps(Gadget(folder)) + data)
    header["__metadata__"]["voxclone"] = json.dumps(metadata() | {place: code})
    return packed(text(header), data)


def sparse(rng: random.Random, folder: Path) -> int:
    """The size of a file that holds next to nothing."""
    return rng.choice([2**24 + 1, 2**30, 2**36])


KINDS: dict[str, Callable[[random.Random, Path], bytes | int]] = {
    each.__name__: each
    for each in (
        noise, truncated, flipped, lying_length, appended, lying_shapes, lying_offsets, odd_dtypes,
        twice_named, more_tensors, odd_metadata, odd_reports, no_metadata, no_numbers, great_shapes,
        pickled, zipped, pickled_inside, sparse,
    )
}  # fmt: skip


def write(path: Path, content: bytes | int) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
        return
    header, _ = built()
    with path.open("wb") as file:
        file.write(packed(text(header), b""))
        file.truncate(content)


def peak() -> int:
    """Kilobytes that this process held at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def load_each(paths: Iterable[str]) -> None:
    """Load the file at each path; print the outcome as JSON. The first is a voice, after which the
    growth of memory is counted."""
    from voxclone.errors import VoiceError
    from voxclone.voice.file import Voice
    from voxclone.voice.store import reference_report

    before = None
    for path in paths:
        message = ""
        try:
            report = reference_report(Voice.load(Path(path.strip())).metadata)
            assert report is None or all(isinstance(s, str) for s in report.sentences())
            outcome = "accepted"
        except VoiceError as error:
            outcome, message = "refused", str(error)
        except BaseException as error:  # whatever it is, report it
            outcome, message = "wrong", repr(error)
        before = peak() if before is None else before
        grown = (peak() - before) / 1024
        print(json.dumps({"outcome": outcome, "message": message, "mib": grown}), flush=True)


if __name__ == "__main__":
    load_each(iter(sys.stdin.readline, ""))
