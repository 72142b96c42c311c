"""A source is one workspace's authorised account at a system, behind a few verbs that answer in records."""
