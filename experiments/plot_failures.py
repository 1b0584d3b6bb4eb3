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
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from voxclone.audio.files import read_wave
from voxclone.errors import ConfigError
from voxclone.evaluate.agreement import agreement
from voxclone.evaluate.report.tables import look_up
from voxclone.evaluate.signal import mel_distance
from voxclone.evaluate.speechset import list_clips
from voxclone.spec import SAMPLING_RATE

COLORS = {  # safe for the color-blind (Okabe and Ito)
    "oracle": "#0072b2",
    "recovered": "#009e73",
    "ours": "#009e73",
    "community": "#cc79a7",
    "naive": "#d55e00",
    "paper": "#8c6d1f",
}
INK = "#1b1f24"
COLLAPSE_RECIPES = ("oracle", "ours", "community", "naive", "paper")
SATURATION_RECIPES = ("naive", "paper", "community")
RECONSTRUCTION = ("loss/mel", "loss/stft")  # the first that a log has
PRIOR_DRAWS = 20
NLL = "language_model.conditioning_gain.semantic_nll"

Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class DecodedClip:
    """A clip [S] as decoded from an encoder's codes, with a note and the encoder's diagnosis."""

    title: str
    wave_S: Tensor
    note: str
    diagnosis: Row = field(default_factory=dict)


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


def cumulative_percentages(counts: Sequence[float]) -> np.ndarray:
    """Percentage of the frames with one of the n most frequent codes, for n from 1."""
    ordered = np.sort(np.asarray(counts, dtype=float))[::-1]
    return 100 * ordered[ordered > 0].cumsum() / ordered.sum()


def expected_counts(prior: Sequence[float], frames: int) -> np.ndarray:
    """Sorted counts of so many frames drawn from the prior: a histogram of few frames looks
    narrower than its distribution."""
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(frames, np.asarray(prior) / np.sum(prior), PRIOR_DRAWS)
    return np.asarray(np.sort(drawn, axis=1)[:, ::-1].mean(0))


def span(values: Sequence[float]) -> str:
    """The smallest and the largest value, or the only one."""
    whole = max(values) >= 100 or all(value == int(value) for value in values)
    ends = [f"{end:.0f}" if whole else f"{end:.1f}" for end in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]}–{ends[1]}"


def plot_collapse(codes: Mapping[str, Sequence[Row]]) -> Figure:
    """Use of the semantic codes by recipe, a curve for each seed. `codes` are the `semantic_codes`
    of diagnoses."""
    first = next(iter(codes.values()))[0]
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    prior = cumulative_percentages(expected_counts(first["prior"], first["frames"]))
    label = f"prior: perplexity {first['expected_perplexity']:.1f}"
    axes.plot(np.arange(1, len(prior) + 1), prior, color=INK, linestyle="--", label=label)
    for name, found in codes.items():
        perplexity, used = (span([c[key] for c in found]) for key in ("perplexity", "codes_in_use"))
        top = span([100 * each["largest_share"] for each in found])
        label = f"{name}: perplexity {perplexity}, {used} codes, top code {top} %"
        for each in found:
            share = cumulative_percentages(each["counts"])
            axes.plot(np.arange(1, len(share) + 1), share, color=COLORS[name], label=label)
            label = "_"  # one line of the legend for all seeds
    axes.set(xscale="log", xlim=(1, len(first["prior"])), ylim=(0, 100))
    axes.set(xlabel="number of most frequent semantic codes", ylabel="share of frames, %")
    axes.set_title(f"Codebook collapse: semantic codes of {first['frames']} frames of test speech")
    axes.legend(loc="lower right", frameon=False)
    return figure


def series(rows: Sequence[Row], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a log; null stands for values that were not finite."""
    found = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    steps, values = np.array(found).reshape(-1, 2).T
    return steps, values


def plot_saturation(logs: Mapping[str, Sequence[Sequence[Row]]]) -> Figure:
    """Reconstruction loss, mel distance of decoded speech, and levels at the ends, over the steps
    of each recipe (columns; a curve for each seed)."""
    figure = Figure(figsize=(9, 7), layout="constrained")
    grid = figure.subplots(3, len(logs), sharex="col", sharey="row", squeeze=False)
    labels = ("reconstruction loss,\nover its first value", "mel distance, log10")
    for axes, label in zip(grid[:, 0], (*labels, "levels at either end, %"), strict=True):
        axes.set(ylabel=label)
    for column, (name, runs) in enumerate(logs.items()):
        loss_axes, mel_axes, level_axes = grid[:, column]
        loss_axes.set_title(name, color=COLORS[name])
        level_axes.set(xlabel="step")
        for rows in runs:
            key = next(k for k in RECONSTRUCTION if len(series(rows, k)[0]))
            steps, losses = series(rows, key)
            loss_axes.plot(steps, losses / losses[0], color=COLORS[name])
            mel_axes.plot(*series(rows, "real/mel"), color=COLORS[name], marker=".")
            steps, shares = series(rows, "real/extreme")
            level_axes.plot(steps, 100 * shares, color=COLORS[name], marker=".")
    for row in grid:
        row[0].set_ylim(bottom=0)
    figure.suptitle("Saturation: levels at the ends, beside the reconstruction loss")
    return figure


def prior_nll(report: Row) -> float:
    """Nats per frame of a diagnosis' semantic codes under the prior alone: entropy plus KL."""
    codes = report["semantic_codes"]
    return math.log(codes["perplexity"]) + float(codes["kl"])


def plot_intervals(axes: Axes, diagnosed: Mapping[str, Row], path: str, label: str) -> None:
    """A metric of each diagnosis with its 95 % interval over speakers."""
    for name, diagnosis in diagnosed.items():
        value = look_up(diagnosis, path)
        ends = [[value["mean"] - value["low"]], [value["high"] - value["mean"]]]
        axes.errorbar([value["mean"]], [name], xerr=ends, fmt="o", color=COLORS[name])
    axes.set(xlabel=label)
    axes.invert_yaxis()


def plot_rejection(clips: Sequence[DecodedClip]) -> Figure:
    """Mel distance beside the language model's NLL, with 95 % intervals, and spectrograms of the
    decoded clips; the clip without a diagnosis is the recording."""
    diagnosed = {each.title: each.diagnosis for each in clips if each.diagnosis}
    figure = Figure(figsize=(9, 9), layout="constrained")
    rows = math.ceil(len(clips) / 2)
    grid = figure.subplots(1 + rows, 2, squeeze=False)
    distance = "mel distance to the recording, log10"
    plot_intervals(grid[0, 0], diagnosed, "round_trip.mel_distance", distance)
    plot_intervals(grid[0, 1], diagnosed, NLL, "NLL of semantic codes, nats (ring: prior alone)")
    priors = [prior_nll(each) for each in diagnosed.values()]
    grid[0, 1].scatter(priors, list(diagnosed), s=90, facecolors="none", edgecolors=INK)
    for axes in grid[1:].flat[len(clips) :]:
        axes.remove()
    for axes, each in zip(grid[1:].flat, clips, strict=False):
        wave_S = each.wave_S.double().numpy()
        axes.specgram(wave_S + 1e-6, NFFT=512, Fs=SAMPLING_RATE, noverlap=384, cmap="gray_r")
        axes.set(ylim=(0, 8000), xlabel="s", ylabel="Hz")
        title = f"{each.title}\n{each.note}"
        axes.set_title(title, color=COLORS.get(each.title, INK), fontsize="small")
    figure.suptitle("Good reconstruction from codes that the language model rejects")
    return figure


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
        clips.append(DecodedClip(name, decoded_S, note, report))
    return clips


def named_encoder(value: str) -> tuple[str, Path]:
    """NAME=PATH, NAME one of `COLORS`."""
    name, _, path = value.partition("=")
    if name not in COLORS or not path:
        raise argparse.ArgumentTypeError(f"{value} is not NAME=PATH, NAME of {', '.join(COLORS)}")
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
    for name, figure in (
        ("collapse", plot_collapse(codes)),
        ("saturation", plot_saturation(logs)),
        ("rejected", plot_rejection(decode_clip(options))),
    ):
        figure.savefig(options.out / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
