"""Prefect flows: parameters in, a job called, its stages as tasks. No logic lives here."""
