"""What can go wrong by a user's hand. Every error here says what came, what was expected and what to do.

Tools print these as one line and exit with status 2; anything else is a defect of ours and keeps its traceback.
"""


class EffsegError(Exception):
    """Base of every error that a user can fix."""


class StackError(EffsegError, ImportError):
    """MMSegmentation is missing, installed twice, or unusable."""


class ConfigError(EffsegError, ValueError):
    """An option that does not exist, or a value it cannot take."""


class WeightsError(EffsegError, RuntimeError):
    """A checkpoint that is missing, unreadable, or made for another network."""


class DataError(EffsegError, RuntimeError):
    """A data set, image or label map that cannot be used."""


class MissingRuntimeError(EffsegError, ImportError):
    """An export or runtime package that is not installed."""


class ArtifactError(EffsegError, RuntimeError):
    """An exported file that is cut, foreign, unsupported, or contradicted by its spec."""


class ParityError(EffsegError, RuntimeError):
    """An exported file that runs, and does not compute what its source computes."""


class FuseError(EffsegError, ValueError):
    """A network that has no exact fused form."""


class DiskError(EffsegError, OSError):
    """A file that could not be written."""


class TrainingError(EffsegError, RuntimeError):
    """A training that cannot go on."""


def first_line(error: BaseException) -> str:
    """What an error of others says, in a line; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
