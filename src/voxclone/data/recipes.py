"""Known corpora through lhotse's own recipes, which know their folders, transcripts and speakers.

A recipe's manifests are kept in a folder of the preparation, so that it is asked once.
"""

import os
from collections.abc import Callable
from pathlib import Path

from voxclone.data import lhotse
from voxclone.data.sources import Source
from voxclone.errors import ConfigError, MissingExtraError, UsageError
from voxclone.io import atomic_folder

CORPORA = ("commonvoice", "librispeech", "libritts-r", "vctk")
JOBS = 2


def recipe_source(corpus: str, path: Path, kept: Path) -> Source:
    """A corpus as it was downloaded and unpacked to `path`; the recipe's manifests go into `kept`.

    Raises UsageError for a corpus without a recipe, MissingExtraError without lhotse, ConfigError
    for a folder that the recipe does not understand.
    """
    if corpus not in CORPORA:
        raise UsageError(f"--corpus takes {', '.join(CORPORA)}, not {corpus!r}.")
    path = path.resolve()
    if not path.is_dir():
        raise ConfigError(f"There is no folder {path}.")
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        run = _recipe(corpus)
        with atomic_folder(kept) as folder:
            try:
                run(path, folder)
            except Exception as error:  # a recipe asserts, and fails by any key or file it misses
                raise ConfigError(
                    f"lhotse's recipe for {corpus} cannot read {path}: "
                    f"{type(error).__name__}: {error or 'no reason given'}. It expects the corpus "
                    "as it was unpacked."
                ) from None
    pairs = lhotse.manifests_in(kept)
    if not pairs:
        raise ConfigError(f"lhotse's recipe for {corpus} finds nothing in {path}.")
    return Source(path.name, lambda: lhotse.items_of(pairs))


def _recipe(corpus: str) -> Callable[[Path, Path], None]:
    try:
        from lhotse import recipes
    except ImportError:
        raise MissingExtraError("lhotse", "data", f"Preparing {corpus}") from None

    def parts(path: Path, holding: str) -> list[str]:
        """Folders of `path` with a transcript in them: a corpus is seldom there in full."""
        found = [name for name in sorted(os.listdir(path)) if (path / name).is_dir()]
        return [name for name in found if next((path / name).rglob(holding), None) is not None]

    def librispeech(path: Path, out: Path) -> None:
        recipes.prepare_librispeech(path, None, parts(path, "*.trans.txt"), out, num_jobs=JOBS)

    def libritts_r(path: Path, out: Path) -> None:
        recipes.prepare_librittsr(path, parts(path, "*.trans.tsv"), out, num_jobs=JOBS)

    def vctk(path: Path, out: Path) -> None:
        trimmed = (path / "wav48_silence_trimmed").is_dir()
        recipes.prepare_vctk(path, out, use_edinburgh_vctk_url=trimmed)

    def commonvoice(path: Path, out: Path) -> None:
        for table in sorted(path.glob("*/train.tsv")):
            splits = [
                name for name in ("train", "dev", "test") if (table.parent / f"{name}.tsv").exists()
            ]
            recipes.prepare_commonvoice(path, out, [table.parent.name], splits, num_jobs=JOBS)

    known = {
        "librispeech": librispeech,
        "libritts-r": libritts_r,
        "vctk": vctk,
        "commonvoice": commonvoice,
    }
    return known[corpus]
