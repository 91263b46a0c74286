"""One run's advice: resolve a profile, map a layout, decide, warn, keep telemetry, replay.

It knows no transport, and it talks to Redis only through the stores of ``advisor.store``.
"""
