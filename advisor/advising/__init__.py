"""One run's advice: resolve a profile, map a layout, decide, warn, keep telemetry, replay.

It knows no transport and no database; stores reach it through protocols.
"""
