"""The graph: Strawberry types whose fields point at resolvers."""
