"""Plots of the known failures of encoder training, from runs that failed.

    python experiments/plot_failures.py --study OUT --reports REPORTS --speech MANIFEST --clip ID \\
        --oracle ORACLE --encoder recovered=ENCODER --encoder naive=ENCODER -o docs/pictures

OUT is the folder of experiments/study.py, with one or several seeds. REPORTS/NAME is the output of
`voxclone diagnose --encoder ENCODER -o REPORTS/NAME` for the oracle and for each named encoder. The
clip, by its id in the manifest, is plotted as each of them decodes it.

Shapes: S samples, K codebooks, T frames.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from failure_plots import RECIPES, DecodedClip, plot_collapse, plot_rejection, plot_saturation
from voxclone.audio.files import read_wave
from voxclone.errors import ConfigError
from voxclone.evaluate.agreement import agreement
from voxclone.evaluate.signal import mel_distance
from voxclone.evaluate.speechset import list_clips

COLLAPSE_RECIPES = ("oracle", "ours", "community", "naive", "paper")
SATURATION_RECIPES = ("naive", "paper", "community")


def read_study(folder: Path, name: str) -> list[dict[str, Any]]:
    """The measurements of each seed of a recipe."""
    paths = [folder / f"{name}.json", *sorted(folder.glob(f"{name}-[0-9]*.json"))]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def read_logs(folder: Path, name: str) -> list[list[dict[str, Any]]]:
    """The log rows of each finished seed of a recipe."""
    return [
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in sorted(folder.glob(f"{name}-[0-9]*/log.jsonl"))
        if (path.parent / "encoder.safetensors").exists()
    ]


def read_minutes(folder: Path, names: Sequence[str]) -> list[float]:
    """Minutes of a core, of each measured seed of some recipes."""
    return [
        json.loads(path.read_text(encoding="utf-8"))["minutes"]
        for name in names
        for path in folder.glob(f"{name}-[0-9]*/spent.json")
        if (folder / f"{path.parent.name}.json").exists()
    ]


def decode_clip(options: argparse.Namespace) -> list[DecodedClip]:
    """The clip, and its reconstruction with each encoder."""
    import torch

    from voxclone.release.encoder_file import open_codec
    from voxclone.release.release import Release

    clip = next((each for each in list_clips(options.speech) if each.id == options.clip), None)
    if clip is None:
        raise ConfigError(f"{options.speech} has no clip {options.clip}; choose one of its ids.")
    wave_S = torch.from_numpy(read_wave(clip.path))
    release = Release.open(options.model)
    clips = [DecodedClip("recording", wave_S, f"“{clip.text}”" if clip.text else "")]
    true_KT: Tensor | None = None
    for name, path in [("oracle", options.oracle), *options.encoder]:
        codec = open_codec(release, path)
        with torch.inference_mode():
            codes_KT = codec.encode(wave_S[None])[0]
            decoded_S = codec.decode(codes_KT[None])[0][: len(wave_S)]
        frames, distinct = codes_KT.shape[1], len(codes_KT[0].unique())
        note = f"mel {mel_distance(wave_S, decoded_S):.3f}; {distinct} codes in {frames} frames"
        if true_KT is None:
            true_KT = codes_KT
        else:
            same = round(agreement(true_KT, codes_KT).semantic * frames)
            note += f", {same} the oracle's"
        report = json.loads((options.reports / name / "report.json").read_text(encoding="utf-8"))
        recipe = RECIPES[name]
        clips.append(DecodedClip(recipe.title, decoded_S, note, recipe.color, report))
    return clips


def named_encoder(value: str) -> tuple[str, Path]:
    """NAME=PATH, NAME one of `RECIPES`."""
    name, _, path = value.partition("=")
    if name not in RECIPES or not path:
        raise argparse.ArgumentTypeError(f"{value} is not NAME=PATH, NAME of {', '.join(RECIPES)}")
    return name, Path(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--study", required=True, type=Path)
    parser.add_argument("--reports", required=True, type=Path)
    parser.add_argument("--speech", required=True, type=Path)
    parser.add_argument("--clip", required=True, help="id in the manifest")
    parser.add_argument("--oracle", required=True, type=Path)
    parser.add_argument(
        "--encoder", required=True, action="append", type=named_encoder, help="NAME=PATH"
    )
    parser.add_argument("--model", default="mini")
    parser.add_argument("-o", "--out", required=True, type=Path)
    options = parser.parse_args()
    codes = {
        name: [each["diagnosis"]["semantic_codes"] for each in found]
        for name in COLLAPSE_RECIPES
        if (found := read_study(options.study, name))
    }
    logs = {name: runs for name in SATURATION_RECIPES if (runs := read_logs(options.study, name))}
    if not codes or not logs:
        raise ConfigError(
            f"{options.study} has no measured runs; make them with experiments/study.py."
        )
    options.out.mkdir(parents=True, exist_ok=True)
    for name, plot in (
        ("collapse", plot_collapse(codes, read_minutes(options.study, COLLAPSE_RECIPES))),
        ("saturation", plot_saturation(logs)),
        ("rejected", plot_rejection(decode_clip(options))),
    ):
        path = options.out / f"{name}.svg"
        path.write_text(plot, encoding="utf-8")
        print(f"{path}: {len(plot) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
