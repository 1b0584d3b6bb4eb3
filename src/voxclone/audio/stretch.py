"""Which stretch of a recording to keep: where it may begin, and that it ends on a pause.

All places are sample numbers. A run (first, end) is speech between two pauses; runs are in order
and do not touch. Each function gets the runs of the whole recording and its number of samples.

Shapes: S samples, T frames of 20 ms.
"""

import numpy as np

from voxclone.audio.measure import FRAME_SECONDS

Run = tuple[int, int]

END_PAUSE_SECONDS = 0.06  # a recording that is quiet for so long at its end was not cut off
HARD_CUT_SHARE = 0.25  # of a stretch without pauses: its end is sought in this last part


def trimmed(runs: list[Run], total: int, lead: int, trail: int, least: int) -> Run:
    """The speech with at most `lead` before and `trail` after it, and at least `least` in all."""
    return widened(max(runs[0][0] - lead, 0), min(runs[-1][1] + trail, total), total, least)


def widened(start: int, end: int, total: int, least: int) -> Run:
    """The stretch, lengthened to `least` where the recording has room: after it, else before."""
    end = min(max(end, start + least), total)
    return max(min(start, end - least), 0), end


def best_stretch(runs: list[Run], total: int, lead: int, trail: int, most: int) -> Run | None:
    """The stretch from a pause to a pause, at most `most` long, with the most speech in it.

    The earliest of equals. None where a run is too long to fit and all that does fit fills less
    than a third of `most`: the long run, cut hard, is then the better reference.
    """
    befores = [0, *(end for _, end in runs)]
    afters = [*(start for start, _ in runs[1:]), total]
    too_long = max(end - start for start, end in runs) + lead + trail > most
    best, best_speech = None, most / 3 if too_long else 0.0
    first, speech = 0, 0
    for last, run in enumerate(runs):
        speech += run[1] - run[0]
        end = min(run[1] + trail, afters[last])
        while first <= last and end - max(runs[first][0] - lead, befores[first]) > most:
            speech -= runs[first][1] - runs[first][0]
            first += 1
        if speech > best_speech:
            best = (max(runs[first][0] - lead, befores[first]), end)
            best_speech = speech
    return best


def hard_cut(runs: list[Run], power_T: np.ndarray, rate: int, lead: int, most: int) -> Run:
    """The beginning of the longest run, up to the quietest frame in the last part of `most`."""
    longest = max(runs, key=lambda run: run[1] - run[0])
    start = max(longest[0] - lead, 0)
    size = round(FRAME_SECONDS * rate)
    low, high = (start + round(most * (1 - HARD_CUT_SHARE))) // size + 1, (start + most) // size
    part_T = power_T[low:high]
    end = (low + int(part_T.argmin())) * size if len(part_T) else start + most
    return start, end


def broken_run(runs: list[Run], total: int, rate: int, end: int) -> int | None:
    """The number of the run that breaks off at `end`; None where `end` lies in a pause."""
    for number, (first, last) in enumerate(runs):
        if first < end < last:
            return number
    stops_at_once = total - runs[-1][1] < END_PAUSE_SECONDS * rate
    return len(runs) - 1 if end >= runs[-1][1] and stops_at_once else None


def last_pause(runs: list[Run], broken: int, start: int, trail: int) -> int | None:
    """Where a stretch from `start` ends if run number `broken` is given up; None without speech."""
    if broken == 0 or runs[broken - 1][1] <= start:
        return None
    return min(runs[broken - 1][1] + trail, runs[broken][0])


def good_stretches(
    runs: list[Run], total: int, lead: int, trail: int, most: int, count: int
) -> list[Run]:
    """Up to `count` stretches from a pause to a pause, each at most `most` long and as full of
    speech as its place allows, the fullest first; no two share more than half of the shorter."""
    befores = [0, *(end for _, end in runs)]
    afters = [*(start for start, _ in runs[1:]), total]
    found: list[tuple[int, Run]] = []
    for first, (begin, _) in enumerate(runs):
        start, speech, best = max(begin - lead, befores[first]), 0, None
        for last in range(first, len(runs)):
            end = min(runs[last][1] + trail, afters[last])
            if end - start > most:
                break
            speech += runs[last][1] - runs[last][0]
            best = (speech, (start, end))
        if best is not None:
            found.append(best)
    chosen: list[Run] = []
    for _, run in sorted(found, key=lambda item: (-item[0], item[1])):
        if all(2 * _shared(run, other) <= min(_long(run), _long(other)) for other in chosen):
            chosen.append(run)
        if len(chosen) == count:
            break
    return chosen


def _shared(one: Run, other: Run) -> int:
    return max(min(one[1], other[1]) - max(one[0], other[0]), 0)


def _long(run: Run) -> int:
    return run[1] - run[0]
