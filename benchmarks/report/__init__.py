"""``docs/results.md`` and its pictures, written from the files in benchmarks/results."""
