"""Secrets at rest, and the flows that turn them into authorised requests."""
