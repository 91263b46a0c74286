"""What people look at, as plain rows: frozen dataclasses that carry values with units.

The terminal, a page, a report and an export show the same rows. Nothing here renders: no rich, no
typer, no HTML; and nothing here talks to a service or a store.
"""
