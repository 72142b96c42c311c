"""Rows to records: mapping documents, and the functions they are compiled to."""
