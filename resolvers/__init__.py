"""How edges of the graph are filled: level functions over sources. Nothing here knows a GraphQL type."""
