"""The handler of yield-service, with a bug: a field without area causes a division by zero.

The fleet runs a copy of this file, as a service runs a checkout of its code: see `working_copy`.
"""

import json
from typing import Any

from sahool_dlq.events import ConsumerContext, ProcessingResult

VERSION = "1.4.2"


async def estimate(context: ConsumerContext) -> ProcessingResult:
    """Estimate a yield."""
    estimate_yield(json.loads(context.data)["field"])
    return ProcessingResult.SUCCESS


def estimate_yield(field: dict[str, Any]) -> float:
    """Tonnes per hectare."""
    return _season_total(field) / 1_000


def _season_total(field: dict[str, Any]) -> float:
    return sum(_biomass(field, month) for month in range(4, 10))


def _biomass(field: dict[str, Any], month: int) -> float:
    return month * _density(field["plants"], field["area_hectares"])


def _density(plants: int, area_hectares: float) -> float:
    return plants / area_hectares
