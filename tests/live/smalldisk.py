"""
A disk that is full soon.
"""

import errno
import tempfile
from pathlib import Path

from .daemon import run


class SmallDisk:
    """
    A file system of some megabytes, which takes root to mount. A MariaDB needs about 45.
    """

    def __init__(self, megabytes):
        self.path = Path(tempfile.mkdtemp(prefix="ppolicy-disk-"))
        self._filler = self.path / "filler"
        run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs", str(self.path))

    def fill(self):
        """
        Take all the room that is left.
        """
        with self._filler.open("ab", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(65536))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self):
        """
        Give back what `fill()` took.
        """
        self._filler.unlink(missing_ok=True)

    def close(self):
        # Lazily, in case a process that is about to end still has files open.
        run("umount", "--lazy", str(self.path))
        self.path.rmdir()
