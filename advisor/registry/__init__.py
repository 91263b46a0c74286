"""What the service keeps: profiles, policies, aliases, runs, audit events, and their names.

It holds plain data and its checks. How the data is stored belongs to ``advisor.store``.
"""
