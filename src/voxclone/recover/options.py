"""What `voxclone recover` is asked for."""

from dataclasses import dataclass
from pathlib import Path

STAGES = ("prepare", "validate", "pairs", "train", "diagnose", "evaluate", "inject")
"""In the order in which they run; each needs results of those before it."""


@dataclass(frozen=True)
class Options:
    """The options of the command. `speech` is a folder of recordings, a corpus as it was unpacked
    (`corpus` names its recipe) or a manifest; `overrides` are laid over the config of the training;
    `until` is the last stage to run."""

    model: str
    speech: Path
    out: Path
    corpus: str | None = None
    license: str | None = None
    overrides: tuple[str, ...] = ()
    until: str = STAGES[-1]
    device: str = "auto"

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages up to `until`."""
        return STAGES[: STAGES.index(self.until) + 1]
