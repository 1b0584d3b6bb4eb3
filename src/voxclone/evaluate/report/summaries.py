"""The summary of a report in sentences, by its schema."""

from collections.abc import Callable, Mapping
from typing import Any

from voxclone.evaluate.report.manifest_contents import manifest_summary
from voxclone.evaluate.report.tables import Cell

Report = Mapping[str, Any]


def summary_of(report: Report) -> list[str]:
    """Sentences on a report's results; the first is the headline."""
    return SUMMARIES[report["schema"].split("/")[0]](report)


def _amount(report: Report) -> str:
    return f"{report['clips']} clips of {report['speakers']} speakers, {report['seconds']:.0f} s"


def _by_model(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{Cell(value).text} ({name})" for name, value in values.items())


def _diagnosis_summary(report: Report) -> list[str]:
    return [
        report["checks"]["summary"],
        f"{_amount(report)}; release {report['release']}; encoder {report['encoder']}; "
        f"{report['tool']}",
    ]


def _reconstruction_summary(report: Report) -> list[str]:
    metrics = [f"Mel distance {Cell(report['mel_distance']).text}"]
    if report["similarity"]:
        metrics.append(f"similarity {_by_model(report['similarity'])}")
    return [", ".join(metrics) + ".", f"{_amount(report)}; codec {report['codec']}"]


def _encoder_summary(report: Report) -> list[str]:
    oracle = report["oracle"]
    if oracle is None:
        within = Cell(report["presets"]["within_one"], "{:.1%}").text
        headline = f"Presets: {within} of levels within one."
    else:
        semantic, within = (
            Cell(oracle["normalized"].get(kind), "{:.0%}").text
            for kind in ("semantic", "within_one")
        )
        headline = (
            f"Normalized agreement (0 chance, 100 % the re-encoding bound): semantic codes "
            f"{semantic}, levels within one {within}."
        )
    return [headline, f"{_amount(report)}; encoder {report['encoder']}"]


def _cloning_summary(report: Report) -> list[str]:
    encoder = f"encoder {report['encoder']}"
    if not report["scores"]:
        return ["No length of reference could be measured.", encoder]
    best = report["scores"][-1]
    differences = {name: value["difference"] for name, value in best["similarity"].items()}
    headline = "Speaker similarity was not measured."
    if differences:
        headline = (
            f"Same-speaker minus cross-speaker similarity after {best['seconds']:g} s of "
            f"reference: {_by_model(differences)}."
        )
    return [
        headline,
        f"{best['utterances']} utterances of {best['speakers']} speakers; {encoder}",
    ]


def _protocol_summary(report: Report) -> list[str]:
    same = {name: value["same_speaker"] for name, value in report["similarity"].items()}
    metrics = [f"Similarity {_by_model(same)}"] if same else []
    metrics += [f"WER {_by_model(report['wer'])}"] if report["wer"] else []
    return [
        (", ".join(metrics) or "Nothing was measured") + ".",
        f"{report['sentences']} sentences of {report['speakers']} speakers",
    ]


SUMMARIES: Mapping[str, Callable[[Report], list[str]]] = {
    "voxclone.diagnosis": _diagnosis_summary,
    "voxclone.reconstruction": _reconstruction_summary,
    "voxclone.encoder": _encoder_summary,
    "voxclone.voices": _cloning_summary,
    "voxclone.protocol": _protocol_summary,
    "voxclone.validation": manifest_summary,
}
