"""What a recovery is likely to be worth, by the speech that it is trained on.

The evidence is of two mini releases (docs/RECOVERY.md). The first one's encoder, recovered with 7.4
hours of 390 speakers, clones as well as the true one. That of the second, whose codec is harder,
had 1.7 hours of 181 speakers. Nobody has recovered the real release's yet.
"""

from voxclone.data.validate import LEAST_HOURS, MIN_HOURS, MIN_SPEAKERS
from voxclone.recover.recipe import Recipe
from voxclone.recover.survey import Survey

FAIR = 7.4
"""Hours that the first mini release was recovered with."""
MANY = 200


def expectation(speech: Survey, recipe: Recipe) -> list[str]:
    """Sentences on what to expect of a training on `speech`."""
    return [*_by_hours(speech.hours), *_by_speakers(speech.speakers), *recipe.notes]


def _by_hours(hours: float) -> list[str]:
    if hours < LEAST_HOURS:
        return [
            f"{60 * hours:.1f} minutes to train on are too few: {60 * LEAST_HOURS:.0f} are the "
            "least, for a try; ten hours and more are better."
        ]
    if hours < MIN_HOURS:
        return [
            "Less than an hour is good for a try of the commands: an encoder learns these clips by "
            "heart, and clones little of a new voice."
        ]
    amount = "Less than" if hours < FAIR else "No less than"
    return [
        f"{amount} the {FAIR:g} h with which our first, small release was recovered; there, new "
        "voices were cloned as well as by its true encoder. The packaged one, with 1.7 h, has a "
        "tenth of the true semantic codes. On the real weights nobody has tried."
    ]


def _by_speakers(speakers: int) -> list[str]:
    if speakers < 2:
        return ["One speaker: an encoder of one voice cannot encode others."]
    if speakers < MIN_SPEAKERS:
        return [f"{speakers} speakers: new voices will differ from all of them."]
    if speakers < MANY:
        return [f"{speakers} speakers: some hundreds are better."]
    return []
