"""
A Debian to install packages in, whose processes and files are gone when it is closed: this machine's own under a
layer in memory, or a fresh one, with systemd running in it if need be.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

# This machine's files, below what is changed.
LAYER = """\
mount -t tmpfs tmpfs {folder}
mkdir {folder}/upper {folder}/work {root}
mount -t overlay overlay -o lowerdir=/,upperdir={folder}/upper,workdir={folder}/work {root}
"""

# /run is empty, as where systemd does not run.
MOUNTS = """\
mount -t proc proc {root}/proc
mount -t tmpfs tmpfs {root}/run
mount -t tmpfs tmpfs {root}/tmp
"""

DEVICES = "mount --rbind /dev {root}/dev\n"

# systemd makes groups of processes, and devices for its services.
SYSTEMD = """\
mount -t sysfs -o ro sysfs {root}/sys
mount -t tmpfs tmpfs {root}/sys/fs/cgroup
mkdir {root}/sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup {root}/sys/fs/cgroup/systemd
mount -t tmpfs -o mode=755 tmpfs {root}/dev
for name in null zero full random urandom tty; do cp -a /dev/$name {root}/dev; done
mkdir {root}/dev/shm
"""

START = """\
cd {root}
pivot_root . .
umount -l .
echo ready
exec chroot . env -i {first}
"""

ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


class DebianRoot:
    """
    @ivar fresh: made by debootstrap; else it has the files of this machine, which stay as they are.
    """

    _namespaces = ("--mount", "--pid")

    def __init__(self, folder, fresh=False):
        self.root = folder / "root"
        self.fresh = fresh
        if fresh:
            self._bootstrap()
            files = "mount --bind {root} {root}\n"
        else:
            files = LAYER
        self._hold(files + MOUNTS + DEVICES, "sleep infinity")

    def _hold(self, mounts, first):
        # All mounts, and all processes, end with the first process of these namespaces.
        script = ("set -e\n" + mounts + START).format(folder=self.root.parent, root=self.root, first=first)
        self._holder = subprocess.Popen(
            ["unshare", *self._namespaces, "--fork", "--kill-child", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout.readline() == "ready\n", "no such root can be made here"
        self._first = _child(self._holder)

    def _bootstrap(self):
        codename = _osRelease()["VERSION_CODENAME"]
        uris = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(REPO_URI)", f"Codename: {codename}", "Component: main"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert uris, f"apt knows no mirror of {codename}; run apt-get update"
        command = ["debootstrap", "--variant=minbase", codename, str(self.root), uris[0]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def command(self, *words, user=None):
        """
        The command that runs these words inside.
        """
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
        inside = ["nsenter", f"--target={self._first}", *self._namespaces, "--root"]
        return [*inside, *become, *map(str, words)]

    def run(self, *words, user=None, timeout=60):
        """
        Run a command inside that must succeed; returns what it printed.
        """
        done = subprocess.run(
            self.command(*words, user=user),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            env=ENVIRONMENT,
            cwd="/",
            check=False,
        )
        assert done.returncode == 0, f"{words} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def start(self, *words, user=None):
        """
        Start a command inside; it ends with the root at the latest.
        """
        return subprocess.Popen(
            self.command(*words, user=user),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=ENVIRONMENT,
            cwd="/",
        )

    def terminate(self, process):
        """
        SIGTERM for a command that was started.
        """
        os.kill(_child(process), signal.SIGTERM)

    def exists(self, path):
        """
        Is there such a file inside?
        """
        done = subprocess.run(self.command("test", "-e", path), env=ENVIRONMENT, check=False)
        assert done.returncode in (0, 1)
        return done.returncode == 0

    def write(self, path, content):
        """
        Write a file inside, keeping the owner and mode of one that is there.
        """
        subprocess.run(
            self.command("tee", path), input=content, stdout=subprocess.DEVNULL, env=ENVIRONMENT, check=True
        )

    def close(self):
        self._holder.kill()
        self._holder.communicate()
        # The children's end is not ours to wait for; without them the mounts are gone.
        deadline = time.monotonic() + 10
        while Path(f"/proc/{self._first}").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        shutil.rmtree(self.root, ignore_errors=True)


class BootedDebian(DebianRoot):
    """
    A fresh Debian with some packages whose first process is systemd, in a network of its own.
    """

    _namespaces = ("--mount", "--pid", "--cgroup", "--net", "--ipc", "--uts")

    def __init__(self, folder, *packages):
        self.root = folder / "root"
        self.fresh = True
        self._bootstrap()
        command = ["apt-get", "install", "-y", "--no-install-recommends", "systemd", *packages]
        subprocess.run(
            ["chroot", self.root, *command], env=ENVIRONMENT, capture_output=True, timeout=300, check=True
        )
        mounts = "mount --bind {root} {root}\n" + MOUNTS + SYSTEMD
        self._hold(mounts, "container=other /lib/systemd/systemd --system --log-target=journal")
        deadline = time.monotonic() + 60
        while self._state() not in ("running", "degraded"):
            assert time.monotonic() < deadline, "systemd does not start"
            time.sleep(0.2)

    def _state(self):
        command = self.command("systemctl", "is-system-running")
        return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False).stdout.strip()


def _child(process):
    # unshare and nsenter stay, and wait for the one they have forked.
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


def _osRelease():
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}
