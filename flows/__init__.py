"""Prefect flows: parameters in, one job called, its stages as tasks. No logic here."""
