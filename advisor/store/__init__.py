"""The store: profiles, policies, runs, tokens and the audit log in Redis.

Keys, codecs, Lua scripts and their replies are here. Clients, addresses and the embedded server are
in ``advisor.store.redis``.
"""
