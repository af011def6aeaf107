"""Edits of events before they are redriven: patches, functions, and their preview."""
