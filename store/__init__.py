"""Durable truth: one SQLite file or PostgreSQL, by one URL."""
