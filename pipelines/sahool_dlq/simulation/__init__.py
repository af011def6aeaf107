"""Histories of an imaginary fleet with known causes of failures."""
