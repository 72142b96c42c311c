"""A whole vendor world on loopback: one app per system, one seeded population, and controls for what goes wrong."""
