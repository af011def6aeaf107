"""The errors that users see: one sentence that says what to do.

Every error of ours is a `DLQError`. The `dlq` command prints its message and exits with 1, or with
2 if a named thing does not exist; a flow run fails with it as state message.
"""


class DLQError(Exception):
    """The work cannot continue; the message says what to do."""


class SettingsError(DLQError):
    """A setting is missing or is not valid."""


class ServerUnavailableError(DLQError):
    """NATS or PostgreSQL cannot be reached (transient: the next run continues)."""


class NotPermittedError(DLQError):
    """NATS does not permit something that this user's work needs."""


class StreamError(DLQError):
    """A stream is missing or configured in a way that would lose messages (permanent)."""


class SchemaError(DLQError):
    """The database has no tables yet, or those of another version."""


class FencedError(DLQError):
    """Another run has taken over; this one wrote nothing and stops."""


class LakeError(DLQError):
    """The lake cannot be read or written."""


class RedriveError(DLQError):
    """A redrive cannot be planned or executed."""


class SelectionError(RedriveError):
    """What was given selects nothing, or is not valid."""


class BusyError(RedriveError):
    """Another redrive is running: it is worth trying again later."""


class GroupError(DLQError):
    """A failure group cannot be changed in this way."""


class DeadLetterLimitError(DLQError):
    """A consumer dead-lettered nearly everything and stopped."""


class QueryError(DLQError):
    """A SQL statement was refused or failed."""


class UnknownNameError(QueryError):
    """There is no such failure, group, batch, lake, table or mart."""


class MissingPackageError(DLQError, ImportError):
    """A needed package is not installed."""


class AdoptionError(DLQError):
    """A consumer cannot be adopted, or not in this way."""


class RegroupError(DLQError):
    """History cannot be regrouped now."""


class ErasureError(DLQError):
    """A tenant cannot be erased, or not in this way."""


class SimulationError(DLQError):
    """A simulated history cannot be written there, or is not valid."""


class ReportError(DLQError):
    """The report was not written."""


class AlertError(DLQError):
    """An alert could not be sent, or does not exist."""


class TrialError(DLQError):
    """A handler cannot be tried, or a test not be written."""


class ComparisonError(DLQError):
    """There are no events to compare, or to learn a contract from."""
