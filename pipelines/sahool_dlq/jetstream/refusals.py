"""The errors of a publish: a refusal of the message, or a temporary problem.

Needs nats-py only.
"""

from nats.errors import BadHeaderError, BadSubjectError, MaxPayloadError
from nats.js.errors import APIError

IN_PROCESS = 10158
"""The server's code for an id that a cluster is storing right now: it may succeed or fail."""
WRONG_LAST_SEQUENCE = 10071
"""… and for a condition that does not hold; a repeat of the same message gets it too."""

_OF_THE_MESSAGE = (BadHeaderError, BadSubjectError, MaxPayloadError)
_PASSING = (408, 409, 429)  # HTTP's codes that the server gives such answers
_SERVER_TROUBLE = 500


def is_for_now(error: Exception) -> bool:
    """Whether the same message may be accepted later; it may also have been stored.

    Only a few of the client's errors are about the message. The others are time-outs and
    connections that are down, closing or closed.
    """
    if isinstance(error, APIError):
        code = error.code or _SERVER_TROUBLE
        is_passing = code >= _SERVER_TROUBLE or code in _PASSING
        return is_passing or error.err_code == WRONG_LAST_SEQUENCE
    return not isinstance(error, _OF_THE_MESSAGE)
