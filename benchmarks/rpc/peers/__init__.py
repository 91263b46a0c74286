"""Other services that give training jobs numbers, on the same work.

Each script runs alone, in an environment that may hold nothing of this project, and prints how many
suggestions of 100 parameters, each with a report of what came of it, its service gives in a second.
"""
