"""
Keep Python's collector of cyclic garbage from stopping the server for long.

A full collection looks at everything that is kept, results in caches above all: a tenth of a second for each few
hundred thousand objects, again and again. What has survived one is therefore not looked at any more. Nearly
everything goes without the collector, when nobody refers to it any longer; for the little that does not, each
thousandth collection is a full one as ever. https://docs.python.org/3/library/gc.html#gc.freeze
"""

import gc
from itertools import count

_AGAIN = 1000
# A configuration that was replaced leaves some 60 KB of classes and functions, which only a full collection finds.
_REPLACED = 100
_full = count(1)
_replaced = count(1)


def begin():
    """
    What was made until now lives as long as the server.
    """
    gc.collect()
    gc.freeze()
    if _collected not in gc.callbacks:
        gc.callbacks.append(_collected)


def replaced():
    """
    A configuration was replaced. After many, the next full collection looks at everything again.
    """
    if next(_replaced) % _REPLACED == 0:
        gc.unfreeze()


def end():
    """
    Go on as Python does by itself.
    """
    if _collected in gc.callbacks:
        gc.callbacks.remove(_collected)
    gc.unfreeze()


def _collected(phase, info):
    if info["generation"] != 2:
        return
    if phase == "stop":
        gc.freeze()
        return
    if next(_full) % _AGAIN == 0:
        gc.unfreeze()
