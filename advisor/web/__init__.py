"""The live page: runs and profiles in a browser. It reads through the RPCs and writes nothing.

What is shown comes from ``advisor.report`` as plain rows; rules about advice do not belong here.
"""
