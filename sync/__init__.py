"""Background work: intake of changes, feeds, watches, deliveries; the only place that knows the engine for long work."""
