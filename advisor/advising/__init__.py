"""The advice for one run: resolving a profile, recommending, warning, telemetry, replay.

It must not depend on a transport or on Redis; it declares what it needs of a store as protocols.
"""
