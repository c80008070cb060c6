"""The rule `python_stdlib`."""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence

from modelbuild.api import Artifact, Context, DefaultInfo, Provider, Rule
from modelbuild.rules.python_stdlib.listing import list_modules


class PythonStdlib(Rule):
    """The source of the Python standard library, read from the interpreter that runs the build.

    Output: a tree of `.py` files as they lie in the interpreter's library, without tests, installed packages
    and files generated for one machine. Each file is an input of the build like a file of the workspace: its
    digest is in the keys of what reads it, its path on this machine is not. Another patch release of Python
    therefore rebuilds what depends on the text, and the same release elsewhere does not.
    """

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Declare the tree. Which files there are is read from the disk: a fact of the build, like a glob."""
        root = sysconfig.get_path("stdlib")
        modules, folders = list_modules(root)
        for folder in folders:
            ctx.record_listing(folder)
        if not modules:
            ctx.fail(f"the interpreter has no library source in `{root}`")
        tree = ctx.declare_tree("lib")
        ctx.symlink_tree(tree, {name: Artifact(f"{root}/{name}", "source") for name in modules})
        return [DefaultInfo((tree,))]
