"""Every error a user can cause: each says what, where, expected, found and what to do."""

from collections.abc import Mapping


class HrlSarpError(Exception):
    """Base of all errors the package raises on purpose; the command line prints its one line."""


class ConfigError(HrlSarpError):
    """A configuration file cannot be used; lists every problem found at once."""


class DataError(HrlSarpError):
    """Raw data are missing, unreadable or break the documented format."""


class FeatureError(HrlSarpError):
    """A feature cannot be computed from the columns that the data have, or looks ahead.

    Args:
        message: one line.
        looking_ahead: name of each feature that looks ahead -> how that shows.
    """

    def __init__(self, message: str, looking_ahead: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.looking_ahead = dict(looking_ahead or {})


class OwnCodeError(HrlSarpError):
    """A function of the user's that the configuration names has failed or returned nonsense."""


class MarketError(HrlSarpError):
    """A market cannot be assembled, or was assembled for another purpose than asked."""


class SimulatorError(HrlSarpError):
    """The simulator was driven outside its contract (for example past the last day)."""


class MissingArtifactError(HrlSarpError):
    """A file that an earlier command writes is not there; names that command."""


class OverwriteError(HrlSarpError):
    """A command would overwrite what an earlier one wrote; names it and the options that decide."""


class UsageError(HrlSarpError):
    """Options do not go together, or one has a value that none can have; names them."""


class StorageError(HrlSarpError):
    """A file cannot be written: the disk is full or the folder is not ours."""


class CheckpointError(HrlSarpError):
    """A checkpoint is truncated, hostile, of other shapes or of another market.

    Args:
        message: one line.
        has_seen_future: whether it was fitted on days after the training span that it is asked for.
    """

    def __init__(self, message: str, *, has_seen_future: bool = False) -> None:
        super().__init__(message)
        self.has_seen_future = has_seen_future


class ForecastError(HrlSarpError):
    """A series cannot be forecast: too short, with gaps or NaN, or out of order; names the row."""


class TrainingDivergedError(HrlSarpError):
    """A loss became NaN or infinite; names the step, the dates and the last good checkpoint."""


class MetricError(HrlSarpError):
    """A performance measure was asked of an empty series or one that holds NaN."""


class TrialLogError(HrlSarpError):
    """The trial log holds a line that is no trial, or a trial is asked of an empty span."""


class StoppedEarly(Exception):  # noqa: N818 -- not an error: the user asked for it
    """A phase was asked to stop and has written its checkpoint."""
