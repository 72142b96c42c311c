"""One module per system: facts, and code only for what is unusual."""
