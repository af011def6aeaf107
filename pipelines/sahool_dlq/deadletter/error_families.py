"""The families of error types that rules use, by class name.

Subclasses are known only by name, because a dead letter contains no class hierarchy.
"""

from collections.abc import Iterable

TRANSIENT: dict[str, tuple[str, ...]] = {
    "TimeoutError": (
        "Timeout", "TimeoutException", "ConnectTimeout", "ReadTimeout", "WriteTimeout",
        "PoolTimeout", "ConnectTimeoutError", "ReadTimeoutError", "ServerTimeoutError",
        "ConnectionTimeout", "ConnectionTimeoutError", "SocketTimeoutError",
        "SocketTimeoutException", "HttpTimeoutException", "HttpConnectTimeoutException",
        "DeadlineExceeded",
    ),
    "ConnectionError": (
        "ConnectionRefusedError", "ConnectionResetError", "ConnectionAbortedError",
        "BrokenPipeError", "ConnectError", "NewConnectionError", "ClientConnectionError",
        "ClientConnectorError", "ServerDisconnectedError", "NoServersError",
        "ConnectionClosedError", "StaleConnectionError", "ConnectionDoesNotExistError",
        "CannotConnectNowError", "ConnectException",
    ),
}  # fmt: skip
"""Temporary errors: Python, requests, httpx, aiohttp, database drivers, Java, Go."""

CRITICAL: dict[str, tuple[str, ...]] = {
    "DatabaseError": (
        "OperationalError", "IntegrityError", "ProgrammingError", "InternalError", "DataError",
        "NotSupportedError", "DBAPIError", "PostgresError", "SQLException",
        # psycopg and asyncpg name the condition
        "UniqueViolation", "ForeignKeyViolation", "NotNullViolation", "CheckViolation",
        "UndefinedTable", "UndefinedColumn", "InsufficientPrivilege", "DiskFull",
        "DeadlockDetected", "SerializationFailure", "UniqueViolationError",
    ),
    "AuthenticationError": (
        "AuthenticationFailed", "AuthenticationException", "AuthorizationError",
        "InvalidPasswordError", "UnauthorizedError",
    ),
}  # fmt: skip
"""Errors that need a person."""

CONTENT = (
    "ValidationError", "RequestValidationError", "SchemaError", "SchemaValidationError",
    "ConstraintViolationException", "JSONDecodeError", "JsonParseException", "UnicodeDecodeError",
    "DecodeError", "ParseError", "InvalidPayloadError", "IntegrityError", "UniqueViolation",
    "UniqueViolationError", "ForeignKeyViolation", "ForeignKeyViolationError", "NotNullViolation",
    "NotNullViolationError", "CheckViolation", "CheckViolationError", "DuplicateKeyException",
    "DuplicateKeyError", "DataIntegrityViolationException",
)  # fmt: skip
"""Errors caused by an event's content: it is invalid, or a duplicate."""


def with_subclasses(error_types: Iterable[str]) -> list[str]:
    """The class names of these error types: themselves and their known subclasses."""
    families = TRANSIENT | CRITICAL
    names = dict.fromkeys(error_types)
    for name in list(names):
        names |= dict.fromkeys(families.get(name, ()))
    return list(names)
