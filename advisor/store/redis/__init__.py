"""Access to Redis: clients, addresses, scripts, batches and the embedded server.

Nothing here knows what is stored under which key; that belongs to ``advisor.store``.
"""
