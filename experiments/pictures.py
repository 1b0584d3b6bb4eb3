"""The known failures of recovery, a picture each, from runs that failed.

    python experiments/pictures.py --study OUT --reports REPORTS --speech MANIFEST --clip ID \\
        --oracle ORACLE --encoder recovered=ENCODER --encoder naive=ENCODER -o docs/pictures

OUT is what experiments/study.py trained and measured: all seeds that are there are drawn.
REPORTS/NAME is what `voxclone diagnose --encoder ENCODER -o REPORTS/NAME` wrote of the oracle and
of each encoder that is given by name. The clip is one of the manifest; it is seen, as each of them
decodes it.

Shapes: S samples, K code books, T frames.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from failures import RECIPES, Seen, collapse, rejected, saturation
from voxclone.audio.files import read_wave
from voxclone.errors import ConfigError
from voxclone.evaluate.agreement import agreement
from voxclone.evaluate.signal import mel_distance
from voxclone.evaluate.speechset import list_clips

USING = ("oracle", "ours", "community_v3_mended", "naive", "paper", "community_v3")
TRAINED = ("naive", "paper", "community_v3", "community_v3_mended")


def read_study(folder: Path, name: str) -> list[dict[str, Any]]:
    """What was measured of each seed of a recipe."""
    paths = [folder / f"{name}.json", *sorted(folder.glob(f"{name}-[0-9]*.json"))]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def read_logs(folder: Path, name: str) -> list[list[dict[str, Any]]]:
    """The rows that each finished seed of a recipe logged."""
    return [
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in sorted(folder.glob(f"{name}-[0-9]*/log.jsonl"))
        if (path.parent / "encoder.safetensors").exists()
    ]


def read_minutes(folder: Path, names: Sequence[str]) -> list[float]:
    """Of each measured seed of recipes: minutes of a core."""
    return [
        json.loads(path.read_text(encoding="utf-8"))["minutes"]
        for name in names
        for path in folder.glob(f"{name}-[0-9]*/spent.json")
        if (folder / f"{path.parent.name}.json").exists()
    ]


def see(given: argparse.Namespace) -> list[Seen]:
    """The clip, and what each encoder makes of it."""
    import torch

    from voxclone.release.encoder_file import open_codec
    from voxclone.release.release import Release

    clip = next((each for each in list_clips(given.speech) if each.id == given.clip), None)
    if clip is None:
        raise ConfigError(f"{given.speech} has no clip {given.clip}; choose one of its ids.")
    wave_S = torch.from_numpy(read_wave(clip.path))
    release = Release.open(given.model)
    seen = [Seen("recording", wave_S, f"“{clip.text}”" if clip.text else "")]
    true_KT: Tensor | None = None
    for name, path in [("oracle", given.oracle), *given.encoder]:
        codec = open_codec(release, path)
        with torch.inference_mode():
            codes_KT = codec.encode(wave_S[None])[0]
            decoded_S = codec.decode(codes_KT[None])[0][: len(wave_S)]
        frames, different = codes_KT.shape[1], len(codes_KT[0].unique())
        note = f"mel {mel_distance(wave_S, decoded_S):.3f}; {different} codes in {frames} frames"
        if true_KT is None:
            true_KT = codes_KT
        else:
            same = round(agreement(true_KT, codes_KT).semantic * frames)
            note += f", {same} the oracle's"
        report = json.loads((given.reports / name / "report.json").read_text(encoding="utf-8"))
        seen.append(Seen(RECIPES[name].title, decoded_S, note, RECIPES[name].colour, report))
    return seen


def named(given: str) -> tuple[str, Path]:
    """NAME=PATH, NAME one of `RECIPES`."""
    name, _, path = given.partition("=")
    if name not in RECIPES or not path:
        raise argparse.ArgumentTypeError(f"{given} is not NAME=PATH, NAME of {', '.join(RECIPES)}")
    return name, Path(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--study", required=True, type=Path)
    parser.add_argument("--reports", required=True, type=Path)
    parser.add_argument("--speech", required=True, type=Path)
    parser.add_argument("--clip", required=True, help="id in the manifest")
    parser.add_argument("--oracle", required=True, type=Path)
    parser.add_argument("--encoder", required=True, action="append", type=named, help="NAME=PATH")
    parser.add_argument("--model", default="mini")
    parser.add_argument("-o", "--out", required=True, type=Path)
    given = parser.parse_args()
    books = {
        name: [each["diagnosis"]["book"] for each in found]
        for name in USING
        if (found := read_study(given.study, name))
    }
    logs = {name: runs for name in TRAINED if (runs := read_logs(given.study, name))}
    if not books or not logs:
        raise ConfigError(
            f"{given.study} has no runs with figures; make them by experiments/study.py."
        )
    given.out.mkdir(parents=True, exist_ok=True)
    for name, picture in (
        ("collapse", collapse(books, read_minutes(given.study, USING))),
        ("saturation", saturation(logs)),
        ("rejected", rejected(see(given))),
    ):
        path = given.out / f"{name}.svg"
        path.write_text(picture, encoding="utf-8")
        print(f"{path}: {len(picture) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
