"""Known corpora through lhotse's recipes, which find their folders, transcripts and speakers.

A recipe runs once: its manifests are kept in the folder of the preparation.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from voxclone.data import lhotse
from voxclone.data.sources import SpeechSource
from voxclone.errors import ConfigError, MissingExtraError, UsageError, shorten
from voxclone.io import atomic_folder
from voxclone.readers import require_local

JOBS = 2


def recipe_source(corpus: str, path: Path, kept: Path) -> SpeechSource:
    """A corpus as it was unpacked to `path`; the recipe's manifests go into the folder `kept`.

    Raises UsageError for a corpus without a recipe, MissingExtraError without lhotse, ConfigError
    for a folder that the recipe cannot read.
    """
    check_corpus(corpus, [path])
    path = path.resolve()
    if not kept.is_dir():
        try:
            from lhotse import recipes
        except ImportError:
            raise MissingExtraError("lhotse", "data", f"Preparing {corpus}") from None
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(kept) as folder:
            try:
                CORPORA[corpus](recipes, path, folder)
            except Exception as error:  # a recipe fails by assertions, missing keys or files
                raise ConfigError(
                    f"lhotse's recipe for {corpus} cannot read {path}: "
                    f"{type(error).__name__}: {error or 'no reason given'}. It expects the corpus "
                    "as it was unpacked."
                ) from None
    pairs = lhotse.manifests_in(kept)
    if not pairs:
        raise ConfigError(f"lhotse's recipe for {corpus} finds nothing in {path}.")
    return SpeechSource(path.name, lambda: lhotse.items_of(pairs))


def check_corpus(corpus: str, paths: Iterable[Path]) -> None:
    """Raise UsageError for a corpus without a recipe, ConfigError for folders that are missing."""
    if corpus not in CORPORA:
        raise UsageError(f"--corpus takes {', '.join(CORPORA)}, not {corpus!r}.")
    for path in paths:
        require_local(path, ConfigError, "files")
        if not os.path.isdir(path):
            raise ConfigError(f"There is no folder {shorten(path)}.")


def _librispeech(recipes: Any, path: Path, out: Path) -> None:
    recipes.prepare_librispeech(path, None, _parts(path, "*.trans.txt"), out, num_jobs=JOBS)


def _libritts_r(recipes: Any, path: Path, out: Path) -> None:
    recipes.prepare_librittsr(path, _parts(path, "*.trans.tsv"), out, num_jobs=JOBS)


def _vctk(recipes: Any, path: Path, out: Path) -> None:
    trimmed = (path / "wav48_silence_trimmed").is_dir()
    recipes.prepare_vctk(path, out, use_edinburgh_vctk_url=trimmed)


def _commonvoice(recipes: Any, path: Path, out: Path) -> None:
    for table in sorted(path.glob("*/train.tsv")):
        folder = table.parent
        splits = [name for name in ("train", "dev", "test") if (folder / f"{name}.tsv").exists()]
        recipes.prepare_commonvoice(path, out, [folder.name], splits, num_jobs=JOBS)


def _parts(path: Path, transcript: str) -> list[str]:
    """Folders of `path` with a transcript in them: few users have a corpus in full."""
    found = [name for name in sorted(os.listdir(path)) if (path / name).is_dir()]
    return [name for name in found if next((path / name).rglob(transcript), None) is not None]


CORPORA: dict[str, Callable[[Any, Path, Path], None]] = {
    "commonvoice": _commonvoice,
    "librispeech": _librispeech,
    "libritts-r": _libritts_r,
    "vctk": _vctk,
}
