"""Logs, metrics and what must never stand in them."""
