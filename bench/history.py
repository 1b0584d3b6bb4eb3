"""How much of the past does an encoder need? Codes of crops against those of the whole clip.

    python bench/history.py --speech MANIFEST --encoder ENCODER [--model mini]

A crop from within a clip has not the past that the whole clip has. Frame by frame from the crop's
beginning: the share of semantic codes, levels, and levels within one that are those of the whole
clip; and of the same codes, cut out and decoded, how many the encoder reads.

Shapes: S samples, K code books, T frames.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.evaluate.agreement import agreement
from voxclone.evaluate.speechset import choose, list_clips, load_speech
from voxclone.release.encoder_file import open_codec
from voxclone.release.release import Release

CROP, APART = 45, 7  # frames
PARTS = (0, 1, 2, 4, 8, 14, 21, 30, CROP)


def figures(found_KT: Tensor, true_KT: Tensor) -> Tensor:
    """Semantic, exact and within one for each of `PARTS`."""
    parts = pairwise(PARTS)
    found = [agreement(true_KT[:, a:b], found_KT[:, a:b]) for a, b in parts]
    return torch.tensor([[each.semantic, each.exact, each.within_one] for each in found])


@torch.inference_mode()
def crops_of(codec: Codec, wave_S: Tensor) -> list[Tensor]:
    """For each crop of a clip, its figures as recorded and as decoded."""
    size = codec.frame_size
    frames = len(wave_S) // size
    whole_KT = codec.encode(wave_S[None, : frames * size])[0]
    made = []
    for start in range(codec.config.encoder_history + 1, frames - CROP + 1, APART):
        true_KT = whole_KT[:, start : start + CROP]
        recorded_KT = codec.encode(wave_S[None, start * size : (start + CROP) * size])[0]
        decoded_KT = codec.encode(codec.decode(true_KT[None]))[0]
        made.append(torch.stack([figures(each, true_KT) for each in (recorded_KT, decoded_KT)]))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--speech", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--seconds", type=float, default=200.0)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--encoder", type=Path, required=True)
    given = parser.parse_args()
    codec = open_codec(Release.open(given.model), given.encoder)
    clips = [clip for clip in list_clips(given.speech) if clip.split == given.split]
    speech = load_speech(choose(clips, given.seconds))
    found = [crop for each in speech.utterances for crop in crops_of(codec, each.wave_S)]
    if not found:
        raise SystemExit(f"No clip is long enough for a crop of {CROP} frames and its past.")
    print(f"{len(found)} crops; the encoder looks back over {codec.config.encoder_history} frames")
    means = torch.stack(found).mean(dim=0)
    print("| frames | as recorded | cut out and decoded |\n|---|---|---|")
    for number, (a, b) in enumerate(pairwise(PARTS)):
        cells = [" / ".join(f"{x:.2f}" for x in way[number].tolist()) for way in means]
        print(f"| {a} to {b - 1} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
