"""Redis itself: clients, addresses, scripts and batches, the embedded server.

What is stored under which key belongs to ``advisor.store``.
"""
