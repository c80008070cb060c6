"""Questions about the target graph, in Bazel's query language.

grammar.py reads an expression, evaluate.py answers it over a TargetGraph, output.py prints the answer.
"""
