"""The four corpora that lhotse's recipes read, as trees of a few clips laid out as they unpack."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers.corpora import put, rows_in, run, voice

pytest.importorskip("lhotse", reason="needs voxclone[data]")


def librispeech(root: Path) -> None:
    for part, speaker in (("train-clean-5", 19), ("dev-clean", 84)):
        folder = root / part / f"{speaker}" / "198"
        names = [f"{speaker}-198-{n:04d}" for n in range(2)]
        for n, name in enumerate(names):
            put(folder / f"{name}.flac", 0.3 * voice(speaker + n, 16000), 16000)
        (folder / f"{speaker}-198.trans.txt").write_text(
            "\n".join(f"{name} WE GO {n}" for n, name in enumerate(names))
        )


def libritts(root: Path) -> None:
    for part, speaker in (("train-clean-100", 19), ("test-clean", 84)):
        folder = root / part / f"{speaker}" / "198"
        names = [f"{speaker}_198_{n:06d}_000000" for n in range(2)]
        for n, name in enumerate(names):
            put(folder / f"{name}.wav", 0.3 * voice(speaker + n))
        lines = [f"{name}\twe go {n}.\tWe go {n}." for n, name in enumerate(names)]
        (folder / f"{speaker}_198.trans.tsv").write_text("\n".join(lines))
        (folder / f"{speaker}_198.book.tsv").write_text(
            "\n".join(f"{name}\tx\t0\t1\t20.5" for name in names)
        )


def _vctk_texts(root: Path) -> None:
    for speaker in ("p225", "p226"):
        for n in range(2):
            path = root / "txt" / speaker / f"{speaker}_{n:03d}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"We go {n}.\n")


def vctk(root: Path) -> None:
    """Version 0.92: two microphones, FLAC."""
    _vctk_texts(root)
    for s, speaker in enumerate(("p225", "p226")):
        for n in range(2):
            for microphone in ("mic1", "mic2"):
                path = root / "wav48_silence_trimmed" / speaker / f"{speaker}_{n:03d}_{microphone}"
                put(path.with_suffix(".flac"), 0.3 * voice(10 * s + n, 48000), 48000)
    (root / "speaker-info.txt").write_text(
        "ID  AGE  GENDER  ACCENTS  REGION COMMENTS\n"
        "p225  23  F    English    Southern  England\n"
        "p226  22  M    English    Surrey\n"
    )


def vctk_old(root: Path) -> None:
    """Version 0.80: one microphone, WAV, and speakers without a `p`."""
    _vctk_texts(root)
    for s, speaker in enumerate(("p225", "p226")):
        for n in range(2):
            path = root / "wav48" / speaker / f"{speaker}_{n:03d}.wav"
            put(path, 0.3 * voice(10 * s + n, 48000), 48000)
    (root / "speaker-info.txt").write_text(
        "ID  AGE  GENDER  ACCENTS  REGION\n"
        "225  23  F    English    Southern  England\n"
        "226  22  M    English    Surrey\n"
    )


COLUMNS = [
    "client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes",
    "age", "gender", "accents", "variant", "locale", "segment",
]  # fmt: skip


def commonvoice(root: Path) -> None:
    """Two languages, of which one has a second split."""
    for language, part in (("de", "train"), ("de", "dev"), ("en", "train")):
        rows = []
        for n in range(2):
            name = f"common_voice_{language}_{part}{n}.mp3"
            wave = 0.3 * voice(sum(name.encode()), 32000)
            put(root / language / "clips" / name, wave, 32000)
            row = {"client_id": f"{part}-{language}", "path": name, "sentence": f"We go {n}."}
            rows.append("\t".join({**dict.fromkeys(COLUMNS, ""), **row}[c] for c in COLUMNS))
        table = root / language / f"{part}.tsv"
        table.write_text("\n".join(["\t".join(COLUMNS), *rows]) + "\n")


TREES: dict[str, tuple[str, Callable[[Path], None], set[tuple[str, ...]]]] = {
    "LibriSpeech": (
        "librispeech", librispeech,
        {("19", "train", "en", "WE GO 0"), ("19", "train", "en", "WE GO 1"),
         ("84", "valid", "en", "WE GO 0"), ("84", "valid", "en", "WE GO 1")},
    ),
    "LibriTTS_R": (
        "libritts-r", libritts,
        {("19", "train", "en", "We go 0."), ("19", "train", "en", "We go 1."),
         ("84", "test", "en", "We go 0."), ("84", "test", "en", "We go 1.")},
    ),
    "VCTK-Corpus-0.92": (
        "vctk", vctk,
        {("p225", "train", "en", "We go 0."), ("p225", "train", "en", "We go 1."),
         ("p226", "train", "en", "We go 0."), ("p226", "train", "en", "We go 1.")},
    ),
    "VCTK-Corpus": (
        "vctk", vctk_old,
        {("p225", "train", "en", "We go 0."), ("p225", "train", "en", "We go 1."),
         ("p226", "train", "en", "We go 0."), ("p226", "train", "en", "We go 1.")},
    ),
    "cv-corpus": (
        "commonvoice", commonvoice,
        {("train-de", "train", "de", "We go 0."), ("train-de", "train", "de", "We go 1."),
         ("dev-de", "valid", "de", "We go 0."), ("dev-de", "valid", "de", "We go 1."),
         ("train-en", "train", "en", "We go 0."), ("train-en", "train", "en", "We go 1.")},
    ),
}  # fmt: skip


class Threads(ThreadPoolExecutor):
    """In place of processes, each of which imports lhotse for seconds."""

    def __init__(self, max_workers: int, mp_context: object) -> None:
        super().__init__(max_workers)


@pytest.mark.parametrize("name", TREES)
def test_a_corpus_as_it_unpacks_becomes_clips(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lhotse.recipes.commonvoice.ProcessPoolExecutor", Threads)
    corpus, lay, expected = TREES[name]
    root, out = tmp_path / name, tmp_path / "out"
    lay(root)
    given = ("prepare", root, "-o", out, "--corpus", corpus, "--jobs", "1")
    code, printed = run(*given)
    assert code == 0 and f"Kept {len(expected)} clips" in printed, printed
    rows = rows_in(out)
    assert {(r["speaker"], r["split"], r["language"], r["text"]) for r in rows} == expected
    assert len(rows) == len(expected) and all((out / row["path"]).is_file() for row in rows)
    for row in rows:
        assert Path(row["source"]).is_relative_to(root) and Path(row["source"]).is_file()
    before = (out / "manifest.jsonl").read_bytes()
    assert run(*given)[0] == 0 and (out / "manifest.jsonl").read_bytes() == before


def test_a_tree_that_a_recipe_cannot_read_is_a_sentence(tmp_path: Path) -> None:
    vctk(tmp_path / "VCTK")
    (tmp_path / "VCTK" / "speaker-info.txt").unlink()
    given = ("prepare", tmp_path / "VCTK", "-o", tmp_path / "out", "--corpus", "vctk")
    code, error = run(*given)
    assert code == 1 and "speaker-info.txt" in error and "as it was unpacked" in error
    assert not list((tmp_path / "out" / "lhotse").iterdir())
    librispeech(tmp_path / "LibriSpeech")
    given = (
        "prepare", tmp_path / "LibriSpeech", "-o", tmp_path / "o2", "--corpus", "commonvoice",
    )  # fmt: skip
    code, error = run(*given)
    assert code == 1 and "finds nothing in" in error
