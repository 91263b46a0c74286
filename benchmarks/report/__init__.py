"""``docs/explanation/results.md`` and its pictures, from the files in benchmarks/results."""
