"""What the service keeps: profiles, policies, aliases, runs, audit events, and their names.

Plain data and its checks; how it is stored belongs to ``advisor.store``.
"""
