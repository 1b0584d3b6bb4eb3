"""The tables of a report, by its schema."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxclone.evaluate.report.manifest_contents import manifest_tables
from voxclone.evaluate.report.tables import Cell, Row, Table, look_up

Report = Mapping[str, Any]


def tables_of(report: Report) -> list[Table]:
    """The tables of a report of any schema."""
    return TABLES[report["schema"].split("/")[0]](report)


@dataclass(frozen=True)
class Metric:
    """A row of a table: its label, the dotted path of its value, format and note."""

    label: str
    path: str
    form: str = "{:.3f}"
    note: str = ""


def _rows(columns: Sequence[Report], metrics: Iterable[Metric]) -> list[Row]:
    return [
        Row(m.label, tuple(Cell(look_up(column, m.path), m.form) for column in columns), m.note)
        for m in metrics
    ]


def _model_rows(
    columns: Sequence[Report], label: str, key: str, form: str = "{:.3f}", note: str = ""
) -> list[Row]:
    """A row for each network that gave the metric `key`, with a cell for each column."""
    return [
        Row(f"{label}, {name}", tuple(Cell(each[key].get(name), form) for each in columns), note)
        for name in columns[0][key]
    ]


def _similarity_rows(columns: Sequence[Report]) -> list[Row]:
    return [
        Row(f"{name}, {label}", tuple(Cell(each["similarity"][name][kind]) for each in columns))
        for name in columns[0]["similarity"]
        for kind, label in SIMILARITY.items()
    ]


def _diagnosis(report: Report) -> list[Table]:
    return [
        Table(title, (), tuple(_rows([report], metrics))) for title, metrics in DIAGNOSIS.items()
    ]


def _reconstruction(report: Report) -> list[Table]:
    recordings = {key: report[f"recordings_{key}"] for key in ("cer", "wer", "dnsmos")}
    both = (report, recordings)
    signal = _rows([report], RECONSTRUCTION)
    signal += _model_rows([report], "similarity", "similarity", note="to its own recording")
    alone = _model_rows(both, "CER", "cer") + _model_rows(both, "WER", "wer")
    alone += _model_rows(both, "DNSMOS", "dnsmos", "{:.2f}", "1 to 5")
    return [
        Table("Decoded speech against its recording", (), tuple(signal)),
        Table("Without a reference", ("decoded", "recordings"), tuple(alone)),
    ]


def _encoder(report: Report) -> list[Table]:
    presets = _rows([report["presets"], report["presets_by_chance"]], CODES)
    tables = [
        Table("Presets, decoded and encoded again", ("this encoder", "chance"), tuple(presets))
    ]
    oracle = report["oracle"]
    if oracle is None:
        return tables
    agreement = _rows([oracle[column] for column in ORACLE_COLUMNS], CODES)
    return [
        *tables,
        Table("Codes against the oracle's", tuple(ORACLE_COLUMNS.values()), tuple(agreement)),
        Table("On real speech", (), tuple(_rows([oracle], ORACLE))),
    ]


def _cloning(report: Report) -> list[Table]:
    scores = report["scores"]
    if not scores:
        return []
    headings = tuple(f"{each['seconds']:g} s" for each in scores)
    speech = _model_rows(scores, "CER", "cer") + _model_rows(scores, "WER", "wer")
    speech += _model_rows(scores, "DNSMOS", "dnsmos", "{:.2f}", "1 to 5")
    speech += _rows(scores, SPEECH)
    speech += _rows(scores, [Metric(name, name, "{:.0f}") for name in ("speakers", "utterances")])
    return [
        Table("Speaker similarity, by reference", headings, tuple(_similarity_rows(scores))),
        Table("Speech", headings, tuple(speech)),
    ]


def _protocol(report: Report) -> list[Table]:
    columns = [report]
    speech = _model_rows(columns, "WER", "wer") + _model_rows(columns, "CER", "cer")
    speech += _model_rows(columns, "DNSMOS", "dnsmos", "{:.2f}", "1 to 5")
    speech += _rows(columns, (*SPEECH, Metric("sentences", "sentences", "{:.0f}")))
    speech += _rows(columns, [Metric("seeds", "seeds", "{:.0f}", "of each sentence")])
    silent = Cell(len(report["silent"]), "{:.0f}")
    speech.append(Row("silent", (silent,), "counted with similarity 0, error rate 1"))
    return [
        Table("Speaker similarity", (), tuple(_similarity_rows(columns))),
        Table("Means over sentences", (), tuple(speech)),
    ]


TABLES: Mapping[str, Callable[[Report], list[Table]]] = {
    "voxclone.diagnosis": _diagnosis,
    "voxclone.reconstruction": _reconstruction,
    "voxclone.encoder": _encoder,
    "voxclone.voices": _cloning,
    "voxclone.protocol": _protocol,
    "voxclone.validation": manifest_tables,
}


SIMILARITY = {
    "same_speaker": "same speaker",
    "cross_speaker": "cross-speaker",
    "difference": "difference",
}
SPEECH = (
    Metric("ended by itself", "ended", "{:.1%}"),
    Metric("stopped early", "early", "{:.1%}", "before half of the seconds expected of the text"),
    Metric("pace", "pace", "{:.2f}", "seconds over those expected of the text"),
    Metric("level", "level", "{:.1f}", "dBFS of active speech"),
)
CODES = (
    Metric("semantic codes", "semantic", "{:.1%}"),
    Metric("levels, exact", "exact", "{:.1%}"),
    Metric("levels, within one", "within_one", "{:.1%}"),
    Metric("levels, mean error", "level_error", "{:.2f}"),
)
ORACLE_COLUMNS = {
    "real": "real speech",
    "chance": "chance",
    "decoded": "decoded speech",
    "bound": "bound (oracle on decoded)",
    "bf16": "real speech, bf16",
}
ORACLE = (
    *(
        Metric(f"{each.label}, normalized", f"normalized.{each.path}", "{:.1%}",
               "0 chance, 100 % the bound")
        for each in CODES
    ),
    Metric("voice embeddings", "embedding_cosine", note="cosine to the oracle's"),
    Metric("levels at an end", "extreme", "{:.2%}"),
    Metric("semantic codes in use", "codes_in_use", "{:.0f}"),
)  # fmt: skip
RECONSTRUCTION = (
    Metric("bit rate", "kbps", "{:.2f}", "kbit/s"),
    Metric("mel distance", "mel_distance", note="log10 of mel magnitudes"),
    Metric("STFT distance", "stft_distance", note="three windows"),
    Metric("level", "level_difference", "{:+.2f}", "dB over the recording"),
    Metric("PESQ", "pesq", "{:.2f}", "wideband, 1 to 4.6"),
    Metric("ESTOI", "estoi", "{:.2f}", "0 to 1"),
)
DIAGNOSIS = {
    "Semantic codes": (
        Metric("codes in use", "semantic_codes.codes_in_use", "{:.0f}", "in all frames"),
        Metric("distinct per clip", "semantic_codes.distinct_per_clip", "{:.1f}"),
        Metric("perplexity", "semantic_codes.perplexity", "{:.0f}"),
        Metric("... of the prior", "semantic_codes.expected_perplexity", "{:.0f}",
               "as many frames drawn from the release's code usage"),
        Metric("KL to the prior", "semantic_codes.kl", "{:.2f}", "nats"),
        Metric("... by chance", "semantic_codes.expected_kl", "{:.2f}",
               "as many frames drawn from the prior"),
        Metric("norm", "semantic_codes.norm_ratio", "{:.2f}", "latents over code vectors"),
        Metric("distance", "semantic_codes.distance", "{:.2f}",
               "to the code vector, over the codebook's variance"),
        Metric("margin", "semantic_codes.margin", "{:.3f}", "to the second nearest"),
        Metric("drift", "semantic_codes.drift", "{:.3f}", "of a code's mean latent"),
    ),
    "Acoustic levels": (
        Metric("at the ends", "levels.encoder.extreme", "{:.2%}"),
        Metric("... presets", "levels.presets.extreme", "{:.2%}"),
        Metric("outside 2..18", "levels.encoder.outer", "{:.2%}"),
        Metric("... presets", "levels.presets.outer", "{:.2%}"),
        Metric("Wasserstein distance", "levels.wasserstein", "{:.2f}",
               "of histograms, levels, mean over channels"),
        Metric("Mahalanobis distance", "levels.mahalanobis", "{:.2f}", "presets have 1"),
        Metric("... most distant preset", "levels.mahalanobis_max_preset", "{:.2f}"),
    ),
    "Voice embeddings": (
        Metric("norm", "voice_embeddings.norm", "{:.2f}"),
        Metric("... presets", "voice_embeddings.preset_norm", "{:.2f}"),
        Metric("cosine to the nearest preset", "voice_embeddings.cosine_to_nearest_preset",
               note="of mean embeddings"),
        Metric("... among presets", "voice_embeddings.cosine_among_presets"),
        Metric("outside the presets' directions", "voice_embeddings.outside", "{:.1%}"),
        Metric("... presets", "voice_embeddings.outside_presets", "{:.1%}", "by the others"),
        Metric("presets inverted exactly", "preset_inversion.exact", "{:.1%}", "bit for bit"),
        Metric("... ambiguous", "preset_inversion.ambiguous", "{:.1%}",
               "a neighboring level gives the same"),
    ),
    "Encoded and decoded": (
        Metric("mel distance", "round_trip.mel_distance", note="of decoded speech"),
        Metric("level", "round_trip.level_difference", "{:+.1f}", "dB over the recording"),
        Metric("presets, semantic", "round_trip.presets.semantic", "{:.1%}",
               "decoded and encoded again"),
        Metric("presets, within one level", "round_trip.presets.within_one", "{:.1%}"),
        Metric("... by chance", "round_trip.presets_by_chance.within_one", "{:.1%}"),
        Metric("bf16, semantic", "round_trip.bf16.semantic", "{:.1%}", "as in fp32"),
        Metric("bf16, exact levels", "round_trip.bf16.exact", "{:.1%}"),
        Metric("in a batch", "round_trip.batched.exact", "{:.1%}", "as alone"),
    ),
    "Language model": tuple(
        Metric(label, f"language_model.{part}.{metric}", form, note)
        for name, metric, form, unit in (
            ("NLL of semantic codes", "semantic_nll", "{:.3f}", "nats per frame"),
            ("flow error", "flow_error", "{:.4f}", "squared"),
            ("conditioning gain, semantic", "semantic_gain", "{:.3f}",
             "nats per frame, other voices minus own"),
            ("conditioning gain, flow", "flow_gain", "{:.4f}", "squared error"),
        )
        for label, part, note in (
            (name, "conditioning_gain", unit),
            ("... generated speech", "generated_conditioning_gain", ""),
        )
    ),
}  # fmt: skip
