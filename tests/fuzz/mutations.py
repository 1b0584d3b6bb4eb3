"""Damaged and hostile files, made of good ones and drawn from a seed."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

VALUES: list[Any] = [
    None, True, False, 0, -1, 3, 2**31, 2**63, 2**64, 10**40, 0.5, -0.0, 1e308, float("nan"),
    float("inf"), float("-inf"), "", "x", "nan", "\0", "a\0b", "../../x", "/dev/zero", "n" * 5000,
    "\ud800", "\u202etxt", "[bold red]", "\x1b[31m", [], {}, [None], [[[[[]]]]], [1, "x"] * 200,
    {"": ""}, {"a": {"b": {"c": None}}},
]  # fmt: skip
SNIPPETS = (
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xe9", b"NaN", b"-Infinity", b"1e999", b"null", b"{}",
    b"[" * 300, b"{" * 50, b'{"a":' * 100, b"]", b"}", b",", b":", b'"', b"\\ud800", b"9" * 400,
    b"\n", b"- ", b"*a", b"&a ", b"!!python/object:os.system x", b"<<: *a", b"|", b"\r\n",
    b"\x80\x04", b"PK\x03\x04",
)  # fmt: skip


def mutate(good: bytes, rng: random.Random) -> bytes:
    """Another file than `good`: its bytes changed, or, where it is JSON, a value in it."""
    kinds: list[Callable[[bytes, random.Random], bytes]] = [_bits, _cut, _insert, _repeat, _swap]
    if (values := _parsed(good)) is not None:
        return _odd_values(values, rng) if rng.random() < 0.6 else rng.choice(kinds)(good, rng)
    mutated = good
    for _ in range(rng.choice((1, 1, 2, 5))):
        mutated = rng.choice(kinds)(mutated, rng)
    return mutated


def _bits(good: bytes, rng: random.Random) -> bytes:
    changed = bytearray(good or b"\0")
    for _ in range(rng.choice((1, 1, 3, 20))):
        # The beginning, where headers are, as often as the rest.
        most = rng.choice((min(len(changed), 200), len(changed)))
        changed[rng.randrange(most)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(good: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(good) + 1)
    return good[:begin] + good[begin + rng.choice((1, 8, 100, len(good))) :]


def _insert(good: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(good) + 1)
    piece = rng.choice(SNIPPETS) if rng.random() < 0.8 else rng.randbytes(rng.randrange(64))
    return good[:place] + piece + good[place:]


def _repeat(good: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(good) + 1)
    piece = good[begin : begin + rng.choice((8, 64, 1000))]
    return good[:begin] + piece * rng.choice((2, 2, 20)) + good[begin:]


def _swap(good: bytes, rng: random.Random) -> bytes:
    first, second = sorted(rng.randrange(len(good) + 1) for _ in range(2))
    return good[second:] + good[first:second] + good[:first]


def _parsed(good: bytes) -> list[Any] | None:
    """The values of lines of JSON, or of one text; None if it is neither."""
    try:
        return [json.loads(good)]
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in good.splitlines()]
    except ValueError:
        return None


def _odd_values(values: list[Any], rng: random.Random) -> bytes:
    values = copy.deepcopy(values)
    for _ in range(rng.choice((1, 1, 1, 3))):
        index = rng.randrange(len(values))
        places = list(_places(values[index]))
        if not places or rng.random() < 0.05:
            values[index] = rng.choice(VALUES)
            continue
        holder, key = rng.choice(places)
        match rng.randrange(5):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[str(rng.choice(VALUES))[:100]] = holder[key]
            case 2:
                holder[key] = [holder[key]] if rng.random() < 0.5 else {"x": holder[key]}
            case _:
                holder[key] = copy.deepcopy(rng.choice(VALUES))
    return "\n".join(json.dumps(value) for value in values).encode()


def _places(value: Any) -> Any:
    """Every container of a value, with each of its keys or positions."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])
