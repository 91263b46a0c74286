"""Tests of the product; CONTRIBUTING.md describes the folders."""

import os

# A console created while COLUMNS is set keeps that width. readline, which pytest imports, sets it
# for the processes that pytest starts.
os.environ.pop("COLUMNS", None)
