"""The advisor's wire contract."""
