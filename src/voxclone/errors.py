"""Errors are sentences: what is wrong, where, and how to mend it."""

EXIT_OK = 0
EXIT_USER = 1
EXIT_USAGE = 2
EXIT_QUALITY = 3


class VoxcloneError(ValueError):
    """A mistake that the user can mend; the command line prints it without a trace."""

    exit_code = EXIT_USER


class UsageError(VoxcloneError):
    """The command itself was wrong (a bad option or argument)."""

    exit_code = EXIT_USAGE


class AudioError(VoxcloneError):
    """A recording that cannot be used; `rule` is the reason in a word or two, for counts."""

    def __init__(self, message: str, rule: str = "undecodable") -> None:
        super().__init__(message)
        self.rule = rule


class ReleaseError(VoxcloneError):
    """A release directory, or a file in it, that is missing, damaged or contradictory."""


class VoiceError(VoxcloneError):
    """A voice file or preset that cannot be used."""


class ConfigError(VoxcloneError):
    """A configuration file with an unknown key or an impossible value."""


class TrainingError(VoxcloneError):
    """A training that cannot go on as it is."""


class MissingExtraError(VoxcloneError):
    """An optional package that the command needs is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed: "
            f"run `pip install 'voxclone[{extra}]'`."
        )


class QualityError(VoxcloneError):
    """A result that exists but is not good enough to be used."""

    exit_code = EXIT_QUALITY
