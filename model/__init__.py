"""The words everything else is built from: records, references, money, stages, errors, time."""
