"""What a user may choose when codes are refined. Nothing heavy is imported."""

from typing import Literal

from pydantic import Field, model_validator

from voxclone.settings import Settings

Weight = float


class RefineWeights(Settings):
    """Of each loss; 0 leaves it out.

    `mel` and `stft`: of the decoded codes to the recording. `speaker`: 1 - cosine of the packaged
    network. `near_levels`: squared distance from the start, in units of two levels.
    `near_semantic`: divergence from the start's opinion, in nats. `likely_levels`: the model's flow
    loss on the levels. `likely_semantic`: exponent of the model's opinion of semantic codes beside
    the start's.
    """

    mel: float = Field(default=1.0, ge=0)
    stft: float = Field(default=0.3, ge=0)
    speaker: float = Field(default=0.0, ge=0)
    near_levels: float = Field(default=0.02, ge=0)
    near_semantic: float = Field(default=0.05, ge=0)
    likely_levels: float = Field(default=0.1, ge=0)
    likely_semantic: float = Field(default=0.7, ge=0)


class RefineSettings(Settings):
    """How codes are refined. The same settings and seed give the same codes on a CPU."""

    steps: int = Field(default=100, ge=0)
    seed: int = Field(default=0, ge=0)
    level_rate: float = Field(default=0.15, gt=0)
    """Levels that a step may move a level, at first; it falls as a cosine to a twentieth."""
    semantic_rate: float = Field(default=0.1, gt=0)
    """The same in nats, for the opinion of semantic codes."""
    temperature: tuple[float, float] = (1.0, 0.3)
    """Of the soft assignment of semantic codes: at the first step, and at the last."""
    floor: float = Field(default=0.01, ge=0)
    """Added to magnitudes, so that the noise of pauses hardly counts (`train.losses.mel_loss`)."""
    piece_frames: int = Field(default=250, ge=1)
    """Longer clips are decoded in overlapping pieces of so many frames, all at once."""
    ask_every: int = Field(default=25, ge=1)
    """Steps between two readings by the language model."""
    judge_every: int = Field(default=25, ge=1)
    patience: int = Field(default=2, ge=1)
    """So many judgements below the best one end the run."""
    judge: Literal["gain", "likeness"] = "gain"
    """By which of the two figures the better codes are kept."""
    save_every: int = Field(default=50, ge=1)
    weights: RefineWeights = RefineWeights()

    @model_validator(mode="after")
    def _is_judged_by_another(self) -> "RefineSettings":
        if self.judge == "likeness" and self.weights.speaker:
            raise ValueError(
                "likeness cannot judge codes that were optimised for it: set the weight `speaker` "
                "to 0, or judge by gain"
            )
        if min(self.temperature) <= 0:
            raise ValueError("temperatures must be above 0")
        return self
