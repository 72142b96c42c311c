"""Which records are one person, and which of their values to show."""
