"""What a report of each schema shows: its tables and, in a sentence or two, what it found."""

from collections.abc import Callable, Mapping
from typing import Any

from voxclone.evaluate.report.speech_contents import speech_summary, speech_tables
from voxclone.evaluate.report.tables import Cell, Row, Table, look_up


def tables_of(report: Mapping[str, Any]) -> list[Table]:
    """The tables of a report of any schema."""
    return BUILDERS[report["schema"].split("/")[0]](report)


def summary_of(report: Mapping[str, Any]) -> list[str]:
    """What a report found, in sentences; the first is the headline."""
    kind = report["schema"].split("/")[0]
    return SUMMARIES[kind](report)


def _diagnosis(report: Mapping[str, Any]) -> list[Table]:
    groups: dict[str, list[Row]] = {}
    for group, label, path, form, note in DIAGNOSIS:
        row = Row(label, (Cell(look_up(report, path), form),), note)
        groups.setdefault(group, []).append(row)
    return [Table(group, (), tuple(rows)) for group, rows in groups.items()]


def _reconstruction(report: Mapping[str, Any]) -> list[Table]:
    signal = (
        Row("bit rate", (Cell(report["kbps"], "{:.2f}"),), "kbit/s"),
        Row("mel distance", (Cell(report["mel_distance"]),), "log10 of mel magnitudes"),
        Row("STFT distance", (Cell(report["stft_distance"]),), "three windows"),
        Row("level", (Cell(report["level_difference"], "{:+.2f}"),), "dB over the recording"),
        Row("PESQ", (Cell(report["pesq"], "{:.2f}"),), "wide band, 1 to 4.6"),
        Row("ESTOI", (Cell(report["estoi"], "{:.2f}"),), "0 to 1"),
        *(
            Row(f"likeness, {name}", (Cell(value),), "decoded to its own recording")
            for name, value in report["likeness"].items()
        ),
    )
    said = []
    for kind in ("cer", "wer"):
        for name, value in report[kind].items():
            cells = (Cell(value), Cell(report[f"recordings_{kind}"].get(name)))
            said.append(Row(f"{kind.upper()}, {name}", cells))
    opinions = [
        Row(f"DNSMOS, {name}", (Cell(value, "{:.2f}"), Cell(recorded, "{:.2f}")), "1 to 5")
        for name, value in report["opinion"].items()
        for recorded in (report["recordings_opinion"].get(name),)
    ]
    return [
        Table("Decoded speech against its recording", (), signal),
        Table("Heard alone", ("decoded", "recordings"), (*said, *opinions)),
    ]


def _encoder(report: Mapping[str, Any]) -> list[Table]:
    kinds = {
        "semantic": ("semantic codes", "{:.1%}"),
        "exact": ("levels, exact", "{:.1%}"),
        "within_one": ("levels, within one", "{:.1%}"),
        "level_error": ("levels, mean error", "{:.2f}"),
    }
    presets = tuple(
        Row(label, (Cell(report["presets"][k], form), Cell(report["presets_by_chance"][k], form)))
        for k, (label, form) in kinds.items()
    )
    tables = [Table("Presets, decoded and encoded again", ("this encoder", "chance"), presets)]
    oracle = report["oracle"]
    if oracle is None:
        return tables
    columns = {
        "real": "real speech",
        "chance": "chance",
        "decoded": "decoded speech",
        "bound": "bound (oracle on decoded)",
        "bf16": "real speech, bf16",
    }
    agreement = tuple(
        Row(label, tuple(Cell(oracle[column][kind], form) for column in columns))
        for kind, (label, form) in kinds.items()
    )
    normalised = tuple(
        Row(label, (Cell(oracle["normalised"].get(kind), "{:.1%}"),), "0 chance, 100 % the bound")
        for kind, (label, _) in kinds.items()
    )
    rows = Row("voice rows", (Cell(oracle["row_cosine"]),), "cosine to the oracle's")
    health = (
        Row("levels at an end", (Cell(oracle["extreme"], "{:.2%}"),)),
        Row("semantic codes in use", (Cell(oracle["codes_in_use"], "{:.0f}"),)),
    )
    return [
        *tables,
        Table("Codes against the oracle's", tuple(columns.values()), agreement),
        Table("Normalised, on real speech", (), (*normalised, rows)),
        Table("Health, on real speech", (), health),
    ]


def _voices(report: Mapping[str, Any]) -> list[Table]:
    scores = report["scores"]
    if not scores:
        return []
    headings = tuple(f"{each['seconds']:g} s" for each in scores)

    def row(label: str, path: str, form: str, note: str = "") -> Row:
        return Row(label, tuple(Cell(look_up(each, path), form) for each in scores), note)

    likeness = []
    for name in scores[0]["likeness"]:
        likeness += [
            row(f"{name}: own", f"likeness.{name}.matched", "{:.3f}", "to the own reference"),
            row(f"{name}: others", f"likeness.{name}.shuffled", "{:.3f}", "to other speakers'"),
            row(f"{name}: gain", f"likeness.{name}.gain", "{:.3f}", "own minus others"),
        ]
    words = [
        row(f"{kind.upper()}, {name}", f"{kind}.{name}", "{:.3f}")
        for kind in ("cer", "wer")
        for name in scores[0][kind]
    ]
    opinion = [
        row(f"DNSMOS, {name}", f"opinion.{name}", "{:.2f}", "1 to 5")
        for name in scores[0]["opinion"]
    ]
    manner = (
        *(row(label, place, form, note) for label, place, form, note in MANNER),
        row("speakers", "speakers", "{:.0f}"),
        row("sayings", "sayings", "{:.0f}"),
    )
    return [
        Table("Likeness, by seconds of reference", headings, tuple(likeness)),
        Table("Words and sound", headings, (*words, *opinion)),
        Table("Manner", headings, manner),
    ]


def _protocol(report: Mapping[str, Any]) -> list[Table]:
    alike = []
    for name, found in report["likeness"].items():
        alike += [
            Row(f"{name}: own", (Cell(found["matched"]),), "to the whole prompt"),
            Row(f"{name}: others", (Cell(found.get("shuffled")),), "to other speakers' prompts"),
            Row(f"{name}: gain", (Cell(found.get("gain")),), "own minus others"),
        ]
    rows = [
        *(Row(f"WER, {n}", (Cell(v),)) for n, v in report["wer"].items()),
        *(Row(f"CER, {n}", (Cell(v),)) for n, v in report["cer"].items()),
        *(
            Row(f"DNSMOS, {n}", (Cell(v, "{:.2f}"),), "1 to 5")
            for n, v in report["opinion"].items()
        ),
        *(
            Row(label, (Cell(report["manner"][place], form),), note)
            for label, place, form, note in MANNER
        ),
        Row("sentences", (Cell(report["sentences"], "{:.0f}"),)),
        Row("seeds", (Cell(report["seeds"], "{:.0f}"),), "of each sentence"),
        Row("nothing said", (Cell(len(report["silent"]), "{:.0f}"),), "likeness 0, error rate 1"),
    ]
    return [
        Table("Likeness", (), tuple(alike)),
        Table("Means over sentences", (), tuple(rows)),
    ]


BUILDERS: Mapping[str, Callable[[Mapping[str, Any]], list[Table]]] = {
    "voxclone.diagnosis": _diagnosis,
    "voxclone.reconstruction": _reconstruction,
    "voxclone.encoder": _encoder,
    "voxclone.voices": _voices,
    "voxclone.protocol": _protocol,
    "voxclone.speech": speech_tables,
}


def _amount(report: Mapping[str, Any]) -> str:
    return f"{report['clips']} clips of {report['speakers']} speakers, {report['seconds']:.0f} s"


def _diagnosed(report: Mapping[str, Any]) -> list[str]:
    facts = (
        f"{_amount(report)}; release {report['release']}; encoder {report['encoder']}; "
        f"{report['tool']}"
    )
    return [report["verdict"]["summary"], facts]


def _reconstructed(report: Mapping[str, Any]) -> list[str]:
    alike = [f"likeness {Cell(value).text} ({name})" for name, value in report["likeness"].items()]
    figures = [f"Mel distance {Cell(report['mel_distance']).text}", *alike]
    return [", ".join(figures) + ".", f"{_amount(report)}; codec {report['codec']}"]


def _encoded(report: Mapping[str, Any]) -> list[str]:
    oracle = report["oracle"]
    if oracle is None:
        found = (
            f"Presets: {Cell(report['presets']['within_one'], '{:.1%}').text} of levels within one."
        )
    else:
        semantic = Cell(oracle["normalised"].get("semantic"), "{:.0%}").text
        within = Cell(oracle["normalised"].get("within_one"), "{:.0%}").text
        found = (
            f"Of the way from chance to the re-encoding bound: semantic codes {semantic}, "
            f"levels within one {within}."
        )
    return [found, f"{_amount(report)}; encoder {report['encoder']}"]


def _cloned(report: Mapping[str, Any]) -> list[str]:
    encoder = f"encoder {report['encoder']}"
    if not report["scores"]:
        return ["No length of reference could be measured.", encoder]
    best = report["scores"][-1]
    gains = [f"{Cell(v['gain']).text} ({name})" for name, v in best["likeness"].items()]
    found = f"Cloned speech is more alike to its own speaker than to others by {', '.join(gains)}"
    return [
        f"{found} after {best['seconds']:g} s of reference." if gains else "Likeness not measured.",
        f"{best['sayings']} sayings of {best['speakers']} speakers at that length; {encoder}",
    ]


def _listed(report: Mapping[str, Any]) -> list[str]:
    alike = [f"likeness {Cell(v['matched']).text} ({n})" for n, v in report["likeness"].items()]
    wrong = [f"WER {Cell(v).text} ({n})" for n, v in report["wer"].items()]
    found = ", ".join([*alike, *wrong]) or "Nothing was measured"
    return [
        found[0].upper() + found[1:] + ".",
        f"{report['sentences']} sentences of {report['speakers']} speakers",
    ]


SUMMARIES: Mapping[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "voxclone.diagnosis": _diagnosed,
    "voxclone.reconstruction": _reconstructed,
    "voxclone.encoder": _encoded,
    "voxclone.voices": _cloned,
    "voxclone.protocol": _listed,
    "voxclone.speech": speech_summary,
}

# Label, place in the report, form, note.
MANNER = (
    ("ended by itself", "ended", "{:.1%}", ""),
    ("stopped early", "early", "{:.1%}", "before half of the seconds expected of the text"),
    ("pace", "pace", "{:.2f}", "seconds over those expected of the text"),
    ("level", "level", "{:.1f}", "dBFS of active speech"),
)

# Group, label, place in the report, form, note.
DIAGNOSIS = (
    ("Semantic codes", "codes in use", "book.codes_in_use", "{:.0f}", "of all frames"),
    ("Semantic codes", "distinct per clip", "book.distinct_per_clip", "{:.1f}", ""),
    ("Semantic codes", "perplexity", "book.perplexity", "{:.0f}", ""),
    ("Semantic codes", "... of the prior", "book.expected_perplexity", "{:.0f}",
     "as many frames drawn from the release's own usage"),
    ("Semantic codes", "KL to the prior", "book.kl", "{:.2f}", "nats"),
    ("Semantic codes", "... by chance", "book.expected_kl", "{:.2f}",
     "as many frames drawn from the prior"),
    ("Semantic codes", "scale", "book.scale", "{:.2f}", "latents' norm over code vectors'"),
    ("Semantic codes", "distance", "book.distance", "{:.2f}",
     "to the code vector, in the book's variance"),
    ("Semantic codes", "margin", "book.margin", "{:.3f}", "of the nearest vector"),
    ("Semantic codes", "drift", "book.drift", "{:.3f}", "mean latent of a code from it"),
    ("Acoustic levels", "at the ends", "levels.own.extreme", "{:.2%}", ""),
    ("Acoustic levels", "... presets", "levels.genuine.extreme", "{:.2%}", ""),
    ("Acoustic levels", "outside 2..18", "levels.own.outer", "{:.2%}", ""),
    ("Acoustic levels", "... presets", "levels.genuine.outer", "{:.2%}", ""),
    ("Acoustic levels", "histograms apart", "levels.apart", "{:.2f}",
     "levels, mean over channels"),
    ("Acoustic levels", "strangeness", "levels.strangeness", "{:.2f}",
     "genuine codes are 1"),
    ("Acoustic levels", "... strangest preset", "levels.strangest_genuine", "{:.2f}", ""),
    ("Voice rows", "norm", "rows.norm", "{:.2f}", ""),
    ("Voice rows", "... presets", "rows.preset_norm", "{:.2f}", ""),
    ("Voice rows", "cosine to the nearest preset", "rows.cosine_to_nearest_preset", "{:.3f}",
     "of mean rows"),
    ("Voice rows", "... among presets", "rows.cosine_among_presets", "{:.3f}", ""),
    ("Voice rows", "outside the presets' directions", "rows.outside", "{:.1%}", ""),
    ("Voice rows", "... presets", "rows.outside_presets", "{:.1%}", "by the others"),
    ("Voice rows", "presets inverted exactly", "inversion.exact", "{:.1%}", "bit for bit"),
    ("Voice rows", "... ambiguous", "inversion.ambiguous", "{:.1%}",
     "a neighbouring level fits as well"),
    ("There and back", "mel distance", "passage.mel", "{:.3f}", "of decoded speech"),
    ("There and back", "loudness", "passage.loudness", "{:+.1f}", "dB"),
    ("There and back", "presets, semantic", "passage.presets.semantic", "{:.1%}",
     "decoded and encoded again"),
    ("There and back", "presets, within one level", "passage.presets.within_one", "{:.1%}",
     ""),
    ("There and back", "... by chance", "passage.presets_by_chance.within_one", "{:.1%}",
     ""),
    ("There and back", "bf16, semantic", "passage.bf16.semantic", "{:.1%}", "as in fp32"),
    ("There and back", "bf16, exact levels", "passage.bf16.exact", "{:.1%}", ""),
    ("There and back", "in a batch", "passage.batched.exact", "{:.1%}", "as alone"),
    ("The model", "semantic codes", "acceptance.semantic", "{:.3f}", "nats per frame"),
    ("The model", "... its own speech", "own_acceptance.semantic", "{:.3f}", ""),
    ("The model", "flow", "acceptance.flow", "{:.4f}", "squared error"),
    ("The model", "conditioning gain, semantic", "acceptance.semantic_gain", "{:.3f}",
     "nats per frame, shuffled minus matched"),
    ("The model", "... its own speech", "own_acceptance.semantic_gain", "{:.3f}", ""),
    ("The model", "conditioning gain, flow", "acceptance.flow_gain", "{:.4f}", ""),
    ("The model", "... its own speech", "own_acceptance.flow_gain", "{:.4f}", ""),
)  # fmt: skip
