"""The config of the training: the shipped one for a release of this size, without the losses for
which the speech lacks something. What is left out is named."""

from dataclasses import dataclass

from voxclone.config import load_settings
from voxclone.data.speakers import Sizes
from voxclone.recover.survey import Survey
from voxclone.release.release import Release
from voxclone.train.encoder_config import EncoderConfig, packaged_config

LARGE = 512
"""Width of the codec from which a release counts as one of the real size (1024)."""


@dataclass(frozen=True)
class Recipe:
    """The values of a training, the name of the shipped config, and sentences on what differs."""

    config: EncoderConfig
    name: str
    notes: tuple[str, ...]


def choose_recipe(release: Release, speech: Survey, overrides: tuple[str, ...]) -> Recipe:
    """The shipped config for `release` on `speech` (its part to train on), with `overrides`. A loss
    that the speech cannot feed is left out, also one that an override asks for. Raises ConfigError
    for a wrong override.

    The clips to train on are those of the speech that was named, so `licenses` is not asked.
    """
    name = "voxtral_4b" if release.params.codec.dim >= LARGE else "mini"
    asked = load_settings(EncoderConfig, packaged_config(name), list(overrides)).weights
    values, notes = ["licenses=null", *overrides], []
    wanted = Sizes().items + Sizes().negatives
    if asked.pseudo_label and not speech.labelable:
        values.append("weights.pseudo_label=0")
        notes.append(
            "Pseudo-labels are left out: no clip has a text and another clip of its speaker."
        )
    if asked.speaker_contrastive and speech.clonable < wanted:
        values.append("weights.speaker_contrastive=0")
        notes.append(
            f"The speaker loss is left out: it needs {wanted} speakers with a text and 12 s of "
            f"other speech, and {speech.clonable} have that."
        )
    config = load_settings(EncoderConfig, packaged_config(name), values)
    return Recipe(config, name, tuple(notes))
