"""A diagnosis as one page of HTML: verdict first, then figures, drawings and clips to hear.

The page holds everything itself (no script, no network) and reads on a phone, in light and dark.

Shapes: S samples.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
from torch import Tensor

from voxclone.audio.files import SAMPLING_RATE
from voxclone.audio.spectrum import magnitudes
from voxclone.evaluate import drawing

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Figure:
    """A row of the tables: where the value lies in the JSON, and what it means."""

    group: str
    label: str
    path: str
    form: str
    note: str


FIGURES = (
    Figure("Semantic codes", "codes in use", "book.codes_in_use", "{:.0f}", "of all frames"),
    Figure("Semantic codes", "distinct per clip", "book.distinct_per_clip", "{:.1f}", ""),
    Figure("Semantic codes", "perplexity", "book.perplexity", "{:.0f}", ""),
    Figure("Semantic codes", "... of the prior", "book.expected_perplexity", "{:.0f}",
           "as many frames drawn from the release's own usage"),
    Figure("Semantic codes", "KL to the prior", "book.kl", "{:.2f}", "nats"),
    Figure("Semantic codes", "... by chance", "book.expected_kl", "{:.2f}",
           "as many frames drawn from the prior"),
    Figure("Semantic codes", "scale", "book.scale", "{:.2f}", "latents' norm over code vectors'"),
    Figure("Semantic codes", "distance", "book.distance", "{:.2f}",
           "to the code vector, in the book's variance"),
    Figure("Semantic codes", "margin", "book.margin", "{:.3f}", "of the nearest vector"),
    Figure("Semantic codes", "drift", "book.drift", "{:.3f}", "mean latent of a code from it"),
    Figure("Acoustic levels", "at the ends", "levels.own.extreme", "{:.2%}", ""),
    Figure("Acoustic levels", "... presets", "levels.genuine.extreme", "{:.2%}", ""),
    Figure("Acoustic levels", "outside 2..18", "levels.own.outer", "{:.2%}", ""),
    Figure("Acoustic levels", "... presets", "levels.genuine.outer", "{:.2%}", ""),
    Figure("Acoustic levels", "histograms apart", "levels.apart", "{:.2f}",
           "levels, mean over channels"),
    Figure("Acoustic levels", "strangeness", "levels.strangeness", "{:.2f}",
           "genuine codes are 1"),
    Figure("Acoustic levels", "... strangest preset", "levels.strangest_genuine", "{:.2f}", ""),
    Figure("Voice rows", "norm", "rows.norm", "{:.2f}", ""),
    Figure("Voice rows", "... presets", "rows.preset_norm", "{:.2f}", ""),
    Figure("Voice rows", "cosine to the nearest preset", "rows.cosine_to_nearest_preset", "{:.3f}",
           "of mean rows"),
    Figure("Voice rows", "... among presets", "rows.cosine_among_presets", "{:.3f}", ""),
    Figure("Voice rows", "outside the presets' directions", "rows.outside", "{:.1%}", ""),
    Figure("Voice rows", "... presets", "rows.outside_presets", "{:.1%}", "by the others"),
    Figure("Voice rows", "presets inverted exactly", "inversion.exact", "{:.1%}", "bit for bit"),
    Figure("Voice rows", "... ambiguous", "inversion.ambiguous", "{:.1%}",
           "a neighbouring level fits as well"),
    Figure("There and back", "mel distance", "passage.mel", "{:.3f}", "of decoded speech"),
    Figure("There and back", "loudness", "passage.loudness", "{:+.1f}", "dB"),
    Figure("There and back", "presets, semantic", "passage.presets.semantic", "{:.1%}",
           "decoded and encoded again"),
    Figure("There and back", "presets, within one level", "passage.presets.within_one", "{:.1%}",
           ""),
    Figure("There and back", "... by chance", "passage.presets_by_chance.within_one", "{:.1%}",
           ""),
    Figure("There and back", "bf16, semantic", "passage.bf16.semantic", "{:.1%}", "as in fp32"),
    Figure("There and back", "bf16, exact levels", "passage.bf16.exact", "{:.1%}", ""),
    Figure("There and back", "in a batch", "passage.batched.exact", "{:.1%}", "as alone"),
    Figure("The model", "semantic codes", "acceptance.semantic", "{:.3f}", "nats per frame"),
    Figure("The model", "... its own speech", "own_acceptance.semantic", "{:.3f}", ""),
    Figure("The model", "flow", "acceptance.flow", "{:.4f}", "squared error"),
    Figure("The model", "conditioning gain, semantic", "acceptance.semantic_gain", "{:.3f}",
           "nats per frame, shuffled minus matched"),
    Figure("The model", "... its own speech", "own_acceptance.semantic_gain", "{:.3f}", ""),
    Figure("The model", "conditioning gain, flow", "acceptance.flow_gain", "{:.4f}", ""),
    Figure("The model", "... its own speech", "own_acceptance.flow_gain", "{:.4f}", ""),
)  # fmt: skip


@dataclass(frozen=True)
class Heard:
    """A clip for the page: the recording [S] and what the codec makes of it [S]."""

    name: str
    recorded_S: Tensor
    decoded_S: Tensor


def look_up(report: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, or None where it was not measured."""
    value: Any = report
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def show(value: Any, form: str) -> str:
    """A figure, with its interval if it has one."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, Mapping):
        mean = form.format(value["mean"])
        if value["low"] is None:
            return mean
        return f"{mean} ({form.format(value['low'])} to {form.format(value['high'])})"
    return form.format(value)


def differs(value: Any, before: Any) -> bool:
    """Whether two figures with intervals are apart beyond them; False for figures without."""
    if not (isinstance(value, Mapping) and isinstance(before, Mapping)):
        return False
    if value["low"] is None or before["low"] is None:
        return False
    return bool(value["low"] > before["high"] or value["high"] < before["low"])


def page(
    report: Mapping[str, Any],
    clips: Sequence[Heard] = (),
    baseline: Mapping[str, Any] | None = None,
) -> str:
    """The whole page of a report (`Diagnosis.to_json()` with its `verdict`)."""
    verdict = report["verdict"]
    state = "well" if verdict["healthy"] else "ill"
    facts = (
        f"{report['clips']} clips of {report['speakers']} speakers, {report['seconds']:.0f} s; "
        f"release {report['release']}; encoder {report['encoder']}; {report['tool']}"
    )
    unread = "".join(
        f"<li>{html.escape(name)}: {html.escape(why)}</li>"
        for name, why in report["unreadable"].items()
    )
    unread = f"<h2>Clips left out</h2><ul>{unread}</ul>" if unread else ""
    body = (
        f'<header class="{state}"><p>Diagnosis of an encoder</p>'
        f"<h1>{html.escape(verdict['summary'])}</h1><p>{html.escape(facts)}</p></header>"
        + "".join(_finding(each) for each in verdict["findings"])
        + _tables(report, baseline)
        + _drawings(report)
        + "".join(_clip(each) for each in clips)
        + unread
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Encoder diagnosis</title><style>{STYLE}</style><main>{body}</main></html>\n"
    )


def _finding(finding: Mapping[str, str]) -> str:
    return (
        f'<section class="finding"><h2>{html.escape(finding["name"])}</h2>'
        f"<p>{html.escape(finding['sentence'])}</p>"
        f"<p><b>{html.escape(finding['figure'])}.</b></p>"
        f"<p>{html.escape(finding['remedy'])}</p></section>"
    )


def _tables(report: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> str:
    parts = []
    for group in dict.fromkeys(figure.group for figure in FIGURES):
        rows = []
        for figure in (each for each in FIGURES if each.group == group):
            value = look_up(report, figure.path)
            cells = f"<td>{show(value, figure.form)}</td>"
            if baseline is not None:
                before = look_up(baseline, figure.path)
                mark = ' class="moved"' if differs(value, before) else ""
                cells += f"<td{mark}>{show(before, figure.form)}</td>"
            note = html.escape(figure.note)
            rows.append(f'<tr><th>{figure.label}</th>{cells}<td class="note">{note}</td></tr>')
        head = "<tr><th></th><td>now</td><td>before</td><td></td></tr>" if baseline else ""
        parts.append(f"<h2>{group}</h2><table>{head}{''.join(rows)}</table>")
    missing = "".join(
        f"<li>{html.escape(name)}: {html.escape(why)}</li>"
        for name, why in report["missing"].items()
    )
    if baseline is not None:
        parts.append("<p class=note>Marked: differences beyond both intervals.</p>")
    return "".join(parts) + (f"<h2>Not measured</h2><ul>{missing}</ul>" if missing else "")


def _drawings(report: Mapping[str, Any]) -> str:
    book, levels, rows = report["book"], report["levels"], report["rows"]
    order = np.argsort(book["prior"])[::-1]
    share = np.array(book["counts"]) / max(1, sum(book["counts"]))
    shown = order[: max(64, int((np.array(book["prior"]) > 0).sum()))]
    smooth = max(1, len(shown) // 128)
    curves = [
        np.convolve(np.asarray(values)[shown], np.ones(smooth) / smooth, "same").tolist()
        for values in (share, np.array(book["prior"]))
    ]
    points = [(each["name"], each["x"], each["y"], each["preset"]) for each in rows["map"]]
    legend = '<p class="note"><b class="own">this encoder</b> <b class="genuine">genuine</b></p>'
    return (
        f"<h2>Use of the semantic codes</h2>{legend}"
        + drawing.lines([("--own", curves[0]), ("--genuine", curves[1])])
        + '<p class="note">Codes in the order of the prior, the commonest first.</p>'
        + f"<h2>Levels of the acoustic channels</h2>{legend}"
        + drawing.histograms(levels["own"]["histogram"], levels["genuine"]["histogram"])
        + f"<h2>Mean rows of voices</h2>{legend}"
        + drawing.scatter(points)
        + '<p class="note">First two principal directions of the presets\' rows.</p>'
        + "<h2>Cosines of mean rows</h2>"
        + drawing.matrix(rows["names"], rows["cosines"])
    )


def _clip(clip: Heard) -> str:
    cells = "".join(
        f"<figure><figcaption>{label}</figcaption>{_player(wave_S)}"
        f"{drawing.grey_image(_spectrogram(wave_S), f'{label}: spectrogram')}</figure>"
        for label, wave_S in (("recording", clip.recorded_S), ("decoded", clip.decoded_S))
    )
    return f'<h2>{html.escape(clip.name)}</h2><div class="pair">{cells}</div>'


def _player(wave_S: Tensor) -> str:
    buffer = io.BytesIO()
    samples = np.clip(wave_S.numpy(), -1, 1)
    soundfile.write(buffer, samples, SAMPLING_RATE, format="OGG", subtype="OPUS")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<audio controls preload="none" src="data:audio/ogg;base64,{data}"></audio>'


def _spectrogram(wave_S: Tensor) -> np.ndarray:
    """0 to 8 kHz over time, 60 dB."""
    magnitude_FT = magnitudes(wave_S[None], 1024, 240)[0][:342:2]
    decibels = 20 * magnitude_FT.clamp(min=1e-5).log10()
    shown: np.ndarray = ((decibels - decibels.max() + 60) / 60).clamp(0, 1).numpy()
    return shown


STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--faint:#c9ced6;--card:#f3f5f8;
--own:#1f6feb;--genuine:#d9822b;--well:#1a7f37;--ill:#b42318}
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ee;--paper:#12161c;--faint:#3a424d;
--card:#1b212a;--own:#6aa6ff;--genuine:#f0a95c;--well:#4cc26b;--ill:#ff8a7a}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:760px;margin:auto;padding:0 16px 48px}
header{border-left:6px solid var(--well);padding:4px 16px;margin:24px 0;overflow-wrap:anywhere}
header.ill{border-color:var(--ill)}
h1{font-size:1.5rem;line-height:1.25;margin:.2em 0}h2{font-size:1.1rem;margin:2em 0 .4em}
.finding{background:var(--card);border-radius:8px;padding:2px 16px;margin:12px 0}
.finding h2{margin-top:.6em;color:var(--ill)}
table{border-collapse:collapse;width:100%;table-layout:fixed}
th,td{text-align:left;font-weight:normal;padding:4px 10px 4px 0;vertical-align:top;
border-bottom:1px solid var(--faint)}
td:not(.note){font-variant-numeric:tabular-nums}
td.note{width:34%}
.note{opacity:.7;font-size:.85rem}.moved{font-weight:bold;color:var(--ill)}
b.own{color:var(--own)}b.genuine{color:var(--genuine)}
svg{width:100%;height:auto}svg text{font:9px system-ui,sans-serif;fill:var(--ink)}
.pair{display:flex;gap:16px;flex-wrap:wrap}figure{margin:0;flex:1 1 300px}
figure img{width:100%;height:140px;border-radius:4px;margin-top:6px}audio{width:100%}
@media(prefers-color-scheme:light){figure img{filter:invert(1)}}
"""
