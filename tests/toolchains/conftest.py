from tests.locked_tools import ROOT, LockedTools

__all__ = ["ROOT", "LockedTools"]
