"""
Keep Python's collector of cyclic garbage from stopping the server for long.

Nearly everything goes without the collector, when nobody refers to it any longer. By itself it would look at all
that requests under way have made, again and again, and at everything that is kept, results in caches above all: a
tenth of a second for each few hundred thousand objects. So it looks seldom, when there are many more objects than
before, and no more at what it has seen once; for the little that becomes garbage later, it looks at everything
after some millions of objects more. https://docs.python.org/3/library/gc.html#gc.freeze
"""

import gc
from itertools import count

# So many objects more than at the last look; of every ten times 60 of these looks one is at everything.
_THRESHOLDS = 100_000, 10, 60
# A configuration that was replaced leaves some 60 KB of classes and functions, which only a look at everything
# finds.
_REPLACED = 100
_before = gc.get_threshold()
_replaced = count(1)


def begin():
    """
    What was made until now lives as long as the server.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    if _collected not in gc.callbacks:
        gc.callbacks.append(_collected)


def replaced():
    """
    A configuration was replaced. After many, everything is looked at.
    """
    if next(_replaced) % _REPLACED == 0:
        gc.collect()


def end():
    """
    Go on as Python does by itself.
    """
    if _collected in gc.callbacks:
        gc.callbacks.remove(_collected)
    gc.set_threshold(*_before)
    gc.unfreeze()


def _collected(phase, info):
    if phase == "stop":
        gc.freeze()
    elif info["generation"] == 2:
        gc.unfreeze()
