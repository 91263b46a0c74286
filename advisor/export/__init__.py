"""Learning rates in the formats of trainers that cannot call an advisor while they train.

One module a format, all pure: rows in, text out. Calls to the service and files do not belong here.
"""
