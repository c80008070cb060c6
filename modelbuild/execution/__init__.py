"""Execution: runs the actions whose keys miss, each in a directory of its own."""
