"""Failures of consumers that use none of our code, brought in from the server's advisories."""
