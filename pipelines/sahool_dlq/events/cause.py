"""An exception as text: no exception can prevent its dead letter."""

import traceback
from pathlib import Path
from typing import NamedTuple

from sahool_dlq.deadletter.sanitize import clean_text

_LONGEST_TRACE = 64_000  # characters
_OURS = Path(__file__).parent


class Cause(NamedTuple):
    """An exception as text: it holds no frames, so it can be kept during retries."""

    error_type: str
    error_message: str
    stack_trace: str | None


def cause_of(error: BaseException, longest_trace: int = _LONGEST_TRACE) -> Cause:
    """An exception as text."""
    return Cause(error_type(error), error_text(error), stack_trace(error, longest_trace))


def error_type(error: BaseException) -> str:
    """The class name of an exception, which policies and reports use."""
    return type(error).__name__


def error_text(error: BaseException) -> str:
    """The text of an exception; nothing that an exception does can prevent its dead letter."""
    try:
        return clean_text(str(error))
    except Exception as failure:  # noqa: BLE001  (a broken __str__ can raise anything)
        return f"(its text cannot be read: {type(failure).__name__})"


def stack_trace(error: BaseException, longest: int = _LONGEST_TRACE) -> str:
    """The full chained traceback; the middle is cut if it is longer than `longest` characters.

    Frames of our code that calls the handler are left out, because they are the same in every
    failure.
    """
    try:
        trace = traceback.TracebackException.from_exception(error)
        link: traceback.TracebackException | None = trace
        while link is not None:
            link.stack[:] = [
                frame for frame in link.stack if not _calls_handlers(Path(frame.filename))
            ]
            link = link.__cause__ or link.__context__
        text = clean_text("".join(trace.format()))
    except Exception as failure:  # noqa: BLE001  (see error_text)
        return f"(the traceback cannot be read: {type(failure).__name__})"
    return shortened(text, longest)


def late_handler(seconds: float) -> str:
    """The failure of a handler that did not end in time."""
    return f"The handler took longer than {seconds} s."


def shortened(text: str, longest: int) -> str:
    """`text`, with the middle cut if it is longer than `longest` characters."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters cut …\n{text[-half:]}"


def _calls_handlers(file: Path) -> bool:
    """Whether frames of a file are in every failure; a handler may call the publisher."""
    return file.is_relative_to(_OURS) and not file.is_relative_to(_OURS / "publishing")
