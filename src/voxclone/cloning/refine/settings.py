"""The settings of a refinement. Nothing heavy is imported here."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from voxclone.config import Settings

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class RefineWeights(Settings):
    """The weight of each loss; 0 leaves it out.

    `mel` and `stft`: distance of the decoded codes to the recording. `speaker`: 1 - cosine of the
    packaged speaker encoder. `level_distance`: squared distance of the levels from the start, in
    units of two levels; not used for a start from nothing, which is noise. `semantic_kl`:
    divergence of the semantic distribution from the start's, in nats. `flow`: the model's flow loss
    on the levels. `model_exponent`: exponent of the model's distribution of semantic codes, in the
    product with the start's.
    """

    mel: NonNegative = 1.0
    stft: NonNegative = 0.3
    speaker: NonNegative = 0.0
    level_distance: NonNegative = 0.02
    semantic_kl: NonNegative = 0.05
    flow: NonNegative = 0.1
    model_exponent: NonNegative = 0.7

    @model_validator(mode="after")
    def _have_a_loss(self) -> "RefineWeights":
        losses = self.model_dump(exclude={"model_exponent"})
        if not any(losses.values()):
            raise ValueError(
                f"without a loss there is nothing to optimize: set one of the weights "
                f"{', '.join(losses)} above 0"
            )
        return self


class RefineSettings(Settings):
    """How codes are refined. The same settings and seed give the same codes on a CPU."""

    steps: int = Field(default=100, ge=0)
    seed: int = Field(default=0, ge=0)
    level_lr: Positive = 0.15
    """Learning rate of the levels, in levels; it decays as a cosine to a twentieth."""
    semantic_lr: Positive = 0.1
    """Learning rate of the semantic logits, in nats, with the same decay."""
    temperature: tuple[Positive, Positive] = (1.0, 0.3)
    """Temperature of the soft assignment of semantic codes, at the first and at the last step."""
    floor: NonNegative = 0.01
    """Added to magnitudes, so that noise in pauses counts little (`audio.distance.mel_loss`)."""
    piece_frames: int = Field(default=250, ge=1)
    """Longer clips are decoded in overlapping pieces of so many frames, all at once."""
    predict_every: int = Field(default=25, ge=1)
    """Steps between two predictions of the language model."""
    evaluate_every: int = Field(default=25, ge=1)
    patience: int = Field(default=2, ge=1)
    """The run ends after so many evaluations below the best one."""
    select_by: Literal["gain", "similarity"] = "gain"
    """The metric by which the best codes are kept."""
    save_every: int = Field(default=50, ge=1)
    weights: RefineWeights = RefineWeights()

    @model_validator(mode="after")
    def _is_selected_by_another(self) -> "RefineSettings":
        if self.select_by == "similarity" and self.weights.speaker:
            raise ValueError(
                "similarity cannot select codes that were optimized for it: set the weight "
                "`speaker` to 0, or select by gain"
            )
        return self
