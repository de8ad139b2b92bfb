"""
ppolicy: a policy server for Postfix whose policy is plain Python.
"""

__version__ = "3.0.0.dev0"
