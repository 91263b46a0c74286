"""Authentication and quotas: tokens, certificate roles, and how much each caller may use.

Nothing here knows gRPC. Token records come through a protocol, so nothing here knows Redis either.
"""
