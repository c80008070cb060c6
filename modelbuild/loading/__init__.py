"""Loading: BUILD.models, .bzl and rule files become a TargetGraph.

load.py            the whole of it: patterns -> packages -> targets -> dependencies, level by level
patterns.py        what a person types
workspace.py       the root, its settings, where packages are; repository.py: installed ones, `@name`
evaluator.py       a child process with limits, in which
  build_file.py      evaluates one BUILD file with what it loads, with glob (globs.py) and select (select.py)
  starlark.py        the one seam to the Starlark engine
declaration.py     recorded calls -> checked targets (attribute_error.py says what is wrong with them)
rule_file.py       rule classes: built in, or run from a workspace's Python file
package.py         Package, Target, TargetGraph, Facts; visibility.py: who may depend on a target
"""
