"""Tests of the product: see CONTRIBUTING.md for where which of them live."""

import os

# A console that is made where this is set has that width for good; readline, which pytest imports,
# sets it for the processes that pytest starts.
os.environ.pop("COLUMNS", None)
