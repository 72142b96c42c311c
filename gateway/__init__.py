"""The edge: HTTP, command line, settings; the one place where all parts meet."""
