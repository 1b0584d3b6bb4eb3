"""Which segment of a recording to keep: where it may begin, and that it ends in a pause.

Positions are sample numbers. `speech` are the segments of speech between pauses, in order and
apart; each function gets those of the whole recording and its number of samples.

Shapes: S samples, T frames of 20 ms.
"""

from typing import NamedTuple

import numpy as np

from voxclone.audio.measure import FRAME_SECONDS

END_PAUSE_SECONDS = 0.06  # a recording that is quiet for so long at its end was not cut off
HARD_CUT_SHARE = 0.25  # of a segment without pauses: its end is sought in this last part


class Segment(NamedTuple):
    """Samples `start` to `end`, without `end` itself."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start

    def overlap(self, other: "Segment") -> int:
        """Samples that both have."""
        return max(min(self.end, other.end) - max(self.start, other.start), 0)


def trim(speech: list[Segment], total: int, lead: int, trail: int, min_length: int) -> Segment:
    """The speech with at most `lead` before and `trail` after it, and at least `min_length`."""
    start, end = max(speech[0].start - lead, 0), min(speech[-1].end + trail, total)
    return lengthen(Segment(start, end), total, min_length)


def lengthen(segment: Segment, total: int, min_length: int) -> Segment:
    """The segment, lengthened to `min_length` if the recording has room: after it, else before."""
    end = min(max(segment.end, segment.start + min_length), total)
    return Segment(max(min(segment.start, end - min_length), 0), end)


def best_segment(
    speech: list[Segment], total: int, lead: int, trail: int, max_length: int
) -> Segment | None:
    """The segment from pause to pause, at most `max_length` long, with the most speech; the
    earliest of equals.

    None where a segment of speech is longer and all that fits fills less than a third of
    `max_length`: the long one, cut hard, is then the better reference.
    """
    starts, ends = _bounds(speech, total, lead, trail)
    too_long = max(each.length for each in speech) + lead + trail > max_length
    best, best_speech = None, max_length / 3 if too_long else 0.0
    first, spoken = 0, 0
    for last, each in enumerate(speech):
        spoken += each.length
        while first <= last and ends[last] - starts[first] > max_length:
            spoken -= speech[first].length
            first += 1
        if spoken > best_speech:
            best, best_speech = Segment(starts[first], ends[last]), spoken
    return best


def good_segments(
    speech: list[Segment], total: int, lead: int, trail: int, max_length: int, count: int
) -> list[Segment]:
    """Up to `count` segments from pause to pause, each at most `max_length` long, those with the
    most speech first; no two share more than half of the shorter one."""
    starts, ends = _bounds(speech, total, lead, trail)
    found: list[tuple[int, Segment]] = []
    for first, start in enumerate(starts):
        spoken, best = 0, None
        for last in range(first, len(speech)):
            if ends[last] - start > max_length:
                break
            spoken += speech[last].length
            best = (spoken, Segment(start, ends[last]))
        if best is not None:
            found.append(best)
    kept: list[Segment] = []
    for _, segment in sorted(found, key=lambda item: (-item[0], item[1])):
        if all(2 * segment.overlap(other) <= min(segment.length, other.length) for other in kept):
            kept.append(segment)
        if len(kept) == count:
            break
    return kept


def hard_cut(
    speech: list[Segment], power_T: np.ndarray, rate: int, lead: int, max_length: int
) -> Segment:
    """The beginning of the longest speech, up to the quietest frame in the last part of
    `max_length`."""
    start = max(max(speech, key=lambda each: each.length).start - lead, 0)
    size = round(FRAME_SECONDS * rate)
    low = (start + round(max_length * (1 - HARD_CUT_SHARE))) // size + 1
    part_T = power_T[low : (start + max_length) // size]
    end = (low + int(part_T.argmin())) * size if len(part_T) else start + max_length
    return Segment(start, end)


def cut_off(speech: list[Segment], total: int, rate: int, end: int) -> int | None:
    """Which segment of speech is cut off at `end`; None if `end` is in a pause."""
    for number, each in enumerate(speech):
        if each.start < end < each.end:
            return number
    stops_at_once = total - speech[-1].end < END_PAUSE_SECONDS * rate
    return len(speech) - 1 if end >= speech[-1].end and stops_at_once else None


def last_pause(speech: list[Segment], number: int, start: int, trail: int) -> int | None:
    """Where a segment from `start` ends without speech `number`; None if no speech is left."""
    if number == 0 or speech[number - 1].end <= start:
        return None
    return min(speech[number - 1].end + trail, speech[number].start)


def _bounds(
    speech: list[Segment], total: int, lead: int, trail: int
) -> tuple[list[int], list[int]]:
    """For each segment of speech, where a segment that begins or ends with it does."""
    previous = [0, *(each.end for each in speech)]
    following = [*(each.start for each in speech[1:]), total]
    starts = [
        max(each.start - lead, before) for each, before in zip(speech, previous, strict=False)
    ]
    return starts, [
        min(each.end + trail, after) for each, after in zip(speech, following, strict=True)
    ]
