"""The imaginary fleet: its services, its tenants, and its kinds of failures.

Each `Kind` is one failure group when fingerprinted: one error type, one call path, one message
whose variables differ from failure to failure.
"""

import random
from dataclasses import dataclass
from itertools import accumulate

__all__ = ["BACKGROUND", "BAD_DEPLOY", "MENDED", "REGRESSION", "TENANTS", "Cure", "Kind", "kind"]


@dataclass(frozen=True, slots=True)
class Cure:
    """How a kind of failure ends."""

    redrive_chance: float | None = None  # that the first redrive helps; later ones rather
    median_seconds: float | None = None  # until a person resolves it; None: nobody does
    discard_chance: float = 0.0  # that the person discards it instead


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of failure."""

    service: str
    error_type: str
    message: str  # with {id}, {host}, {n}, {k} for what varies
    path: tuple[str, ...]  # module:function:line of code, the outermost first
    share: float  # of all failures where nothing special happens
    cure: Cure

    @property
    def name(self) -> str:
        """Its name in the ground truth."""
        return f"{self.service}/{self.error_type}"

    @property
    def event_type(self) -> str:
        """The event type of the events that fail."""
        return f"{self.service}_requested"


_HANDLE = "handlers:handle:return await process(event)"
_HOUR = 3600.0

BACKGROUND = (
    Kind(
        "weather",
        "ConnectionRefusedError",
        "connection to {host} refused after {n} ms",
        (_HANDLE, "forecast:fetch_forecast:await self._session.get(url)"),
        0.16,
        Cure(redrive_chance=0.95),
    ),
    Kind(
        "irrigation",
        "ReadTimeout",
        "GET https://{host}/v2/forecast/{id} took longer than {n}.{k} s",
        (_HANDLE, "planner:plan:forecast = await weather.forecast(field)"),
        0.16,
        Cure(redrive_chance=0.93),
    ),
    Kind(
        "tiles",
        "ClientConnectorError",
        "Cannot connect to host {host} ssl:default [Connect call failed]",
        (_HANDLE, "mosaic:build:tile = await self._store.read(key)"),
        0.14,
        Cure(redrive_chance=0.9),
    ),
    Kind(
        "ndvi",
        "TimeoutError",
        "tile {id} was not read within {n} s",
        (_HANDLE, "index:compute:bands = await read_bands(tile)"),
        0.12,
        Cure(redrive_chance=0.92),
    ),
    Kind(
        "billing",
        "UniqueViolation",
        'duplicate key value violates unique constraint "invoices_pkey"'
        " DETAIL: Key (id)=({id}) already exists.",
        (_HANDLE, "invoices:store:await connection.execute(INSERT, *values)"),
        0.10,
        Cure(median_seconds=1.5 * _HOUR, discard_chance=0.3),
    ),
    Kind(
        "soil",
        "ValidationError",
        "1 validation error for Reading: depth_cm must be below 200, is {n}",
        (_HANDLE, "schemas:parse_reading:return Reading.model_validate(value)"),
        0.05,
        Cure(median_seconds=5 * _HOUR, discard_chance=0.2),
    ),
    Kind(
        "yield",
        "ZeroDivisionError",
        "division by zero",
        (_HANDLE, "estimate:per_hectare:return plants / area"),
        0.08,
        Cure(median_seconds=26 * _HOUR),
    ),
    Kind(
        "notification",
        "SMTPRecipientsRefused",
        "mailbox of subscriber {n} unavailable, message {id}",
        (_HANDLE, "mail:send:await self._smtp.send_message(message)"),
        0.08,
        Cure(median_seconds=12 * _HOUR, discard_chance=0.5),
    ),
    Kind(
        "ndvi",
        "IndexError",
        "index {n} is out of bounds for axis 0 with size {k}",
        (_HANDLE, "index:cloud_mask:return mask[row]"),
        0.05,
        Cure(median_seconds=48 * _HOUR),
    ),
    Kind(
        "soil",
        "UnicodeDecodeError",
        "'utf-8' codec can't decode byte 0xe4 in position {n}: invalid continuation byte",
        (_HANDLE, "readings:decode:return body.decode()"),
        0.06,
        Cure(median_seconds=8 * _HOUR, discard_chance=0.1),
    ),
)
"""The failures of any day; the shares add up to 1."""

BAD_DEPLOY = Kind(
    "yield",
    "KeyError",
    "'harvest_index'",
    (_HANDLE, "estimate:forecast:index = model['harvest_index']"),
    0.0,
    Cure(),
)
"""The failure of version `2.4.0` of `yield`."""

MENDED = Kind(
    "irrigation",
    "TypeError",
    "unsupported operand type(s) for *: 'NoneType' and 'float'",
    (_HANDLE, "planner:demand:return crop.coefficient * evaporation"),
    0.0,
    Cure(),
)
"""What version `2.7.0` of `irrigation` brings, `2.7.1` does not mend, and `2.7.2` does."""

REGRESSION = Kind(
    "weather",
    "AttributeError",
    "'NoneType' object has no attribute 'humidity'",
    (_HANDLE, "forecast:merge:return station.latest.humidity"),
    0.0,
    Cure(median_seconds=4 * _HOUR),
)
"""The failure that was repaired once, and comes back."""


def kind(service: str, error_type: str) -> Kind:
    """A kind of the background."""
    return next(k for k in BACKGROUND if (k.service, k.error_type) == (service, error_type))


class Tenants:
    """Forty tenants, the largest far larger than the smallest."""

    def __init__(self, count: int = 40) -> None:
        self.names = tuple(f"tenant-{number:02d}" for number in range(1, count + 1))
        self._weights = list(accumulate((rank + 3) ** -0.7 for rank in range(count)))

    def draw(self, rng: random.Random) -> str:
        """One of them, at random, larger ones more often."""
        return rng.choices(self.names, cum_weights=self._weights)[0]


TENANTS = Tenants()
