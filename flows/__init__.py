"""Prefect flows: parameters in, one job called, its result shown. No logic lives here."""
