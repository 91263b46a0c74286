"""Who may call, as which role, and how much: tokens, certificate roles, quotas.

It knows no gRPC, and it reads tokens only through ``advisor.store.tokens``.
"""
