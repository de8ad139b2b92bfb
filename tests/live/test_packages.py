"""
What is given to others to install: the wheel's bytes, the Debian package in a Debian, the bill of materials.
"""

import contextlib
import json
import os
import re
import shutil

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ppolicy import __version__

from .debianroot import BootedDebian, DebianRoot
from .policyclient import PolicyClient
from .ports import freePort
from .test_install import awaitAnswer, copyTracked, environment, finish, run

# A fresh Debian and a bill of materials take a minute each: `make packages`.
LONG = bool(os.environ.get("PPOLICY_LONG"))
EPOCH = "1780000000"
CONFIGURATION = "/etc/ppolicy/ppolicy.conf"
UNITS = ("ppolicy.service", "ppolicy.socket")

if LONG:
    FRESH = [False, True]
    COMPRESSION = {}
else:
    FRESH = [False]
    COMPRESSION = {"DPKG_DEB_COMPRESSOR_TYPE": "zstd"}  # xz takes ten seconds more, and saves a quarter


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """
    A checkout with a wheel and a Debian package in dist/.
    """
    programs = ("git", "gcc", "dpkg-deb", "dpkg-shlibdeps", *(["debootstrap"] if LONG else []))
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        pytest.skip(
            f"LIVE TEST SKIPPED: {missing[0]} is missing (Debian packages git, gcc, dpkg-dev, debootstrap)"
        )
    source = copyTracked(tmp_path_factory.mktemp("source"))
    run("make", "deb", cwd=source, env=environment(SOURCE_DATE_EPOCH=EPOCH, **COMPRESSION), timeout=300)
    return source


@pytest.fixture(scope="module")
def deb(source):
    (package,) = (source / "dist").glob("*.deb")
    return package


@pytest.fixture(params=FRESH, ids=lambda fresh: "fresh" if fresh else "this machine's")
def debian(request, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("LIVE TEST SKIPPED: another root needs root")
    root = DebianRoot(tmp_path, request.param)
    yield root
    root.close()


def test_wheelIsReproducible(source, tmp_path):
    """
    `make dist` makes the same wheel, byte for byte, whatever the times and modes of the files, and the umask.
    """
    other = copyTracked(tmp_path)
    for path in other.rglob("*"):
        path.chmod(0o775 if path.is_dir() or path.stat().st_mode & 0o100 else 0o664)
        os.utime(path, (1_000_000_000, 1_000_000_000))
    (other / "build").mkdir()
    (other / "build/tools").symlink_to(source / "build/tools")  # setuptools, as it is locked
    command = ("sh", "-c", "umask 002; exec make dist")
    run(*command, cwd=other, env=environment(SOURCE_DATE_EPOCH=EPOCH))
    (one,) = (source / "dist").glob("*.whl")
    (two,) = (other / "dist").glob("*.whl")
    assert one.name == two.name
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("name", ["ppolicy.service", "ppolicy.socket", "ppolicy.sysusers", "ppolicy.tmpfiles"])
def test_missingUnit(source, tmp_path, name):
    """
    Without a file of systemd's there is no package, but a sentence.
    """
    for folder in ("contrib", "dist"):
        shutil.copytree(source / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.deb"))
    for lock in source.glob("*.lock"):
        shutil.copy(lock, tmp_path)
    (tmp_path / "contrib/systemd" / name).unlink()
    finished = finish(tmp_path / "contrib/debian/build", cwd=tmp_path)
    assert finished.returncode == 1
    assert finished.stdout == (
        f"contrib/debian/build: contrib/systemd/{name} is missing, and the package cannot do without it\n"
    )
    assert list(tmp_path.glob("**/*.deb")) == []


def fields(deb):
    """
    The control file of a package.
    """
    return dict(line.split(": ", 1) for line in run("dpkg-deb", "-f", deb).splitlines() if line[:1] != " ")


@pytest.fixture(scope="module")
def unpacked(deb, tmp_path_factory):
    """
    The package's files and, in DEBIAN, what dpkg keeps of it.
    """
    folder = tmp_path_factory.mktemp("unpacked") / "package"
    run("dpkg-deb", "--raw-extract", deb, folder)
    return folder


def test_debControl(deb, unpacked):
    """
    The package says what it is, needs the Python it was made with and the C libraries of its modules, and has a
    configuration that only root and the server's group may read.
    """
    control = fields(deb)
    minor = run("/usr/bin/python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    depends = control["Depends"].split(", ")
    assert control["Package"] == "ppolicy"
    assert control["Version"] == re.sub(r"\.?(dev|a|b|rc)", r"~\1", __version__) + "-1"
    assert control["Architecture"] == run("dpkg", "--print-architecture").strip()
    assert f"python{minor}" in depends
    assert any(name.startswith("libldap") for name in depends)
    assert (unpacked / "DEBIAN/conffiles").read_text() == f"/etc/logrotate.d/ppolicy\n{CONFIGURATION}\n"
    assert (unpacked / CONFIGURATION[1:]).stat().st_mode & 0o777 == 0o640
    for script in ("postinst", "prerm", "postrm"):
        assert os.access(unpacked / "DEBIAN" / script, os.X_OK)
        run("sh", "-n", unpacked / "DEBIAN" / script)
    run("md5sum", "--check", "--quiet", "DEBIAN/md5sums", cwd=unpacked)


def test_debFiles(deb, source, unpacked):
    """
    All is root's and nobody else can write it, nothing lies where Debian wants nothing, nothing names the place
    where it was built, and what only builds is not there.
    """
    for line in run("dpkg-deb", "--contents", deb).splitlines():
        mode, owner, *_ = line.split()
        assert owner == "root/root", line
        assert mode.startswith("l") or mode[5] + mode[8] == "--", line
    files = {
        str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if not path.is_dir() or path.is_symlink()
    }
    known = (
        "DEBIAN/",
        "etc/logrotate.d/",
        "etc/ppolicy/",
        "lib/systemd/system/",
        "usr/bin/",
        "usr/lib/",
        "usr/share/",
    )
    assert [name for name in files if not name.startswith(known)] == []
    documents = {"copyright", "changelog.Debian.gz", "NEWS.gz", "UPGRADE.gz", "README"}
    assert {f"usr/share/doc/ppolicy/{name}" for name in documents} <= files
    assert {
        "usr/share/ppolicy/MODULES",
        "usr/share/ppolicy/ppolicy.tac",
        "usr/share/man/man1/ppolicy.1.gz",
    } <= files
    assert {"usr/lib/sysusers.d/ppolicy.conf", "usr/lib/tmpfiles.d/ppolicy.conf"} <= files
    assert {f"lib/systemd/system/{unit}" for unit in UNITS} <= files
    completion = (unpacked / "usr/share/bash-completion/completions/ppolicy").read_text(encoding="utf-8")
    assert "_PPOLICY_COMPLETE=bash_complete" in completion
    found = finish("grep", "--recursive", "--files-with-matches", "--fixed-strings", source, unpacked)
    assert (found.returncode, found.stdout) == (1, "")
    packages = unpacked / "usr/lib/ppolicy/lib"
    installed = {path.name.split("-")[0].lower() for path in packages.glob("python3*/site-packages/*.dist-info")}
    assert {"ppolicy", "twisted", "python_ldap", "prometheus_client", "cryptography"} <= installed
    assert installed & {"pip", "setuptools", "build"} == set()


def test_debian(deb, source, debian):
    """
    In a Debian: install, check, serve as the user ppolicy; an upgrade keeps the edited configuration and the
    state, remove leaves both, purge removes all and says so.
    """
    port = freePort()
    debian.write("/tmp/ppolicy.deb", deb.read_bytes())
    if debian.fresh:
        debian.run("apt-get", "update", timeout=120)
        debian.run("apt-get", "install", "-y", "--no-install-recommends", "/tmp/ppolicy.deb", timeout=300)
    else:
        debian.run("dpkg", "--install", "/tmp/ppolicy.deb")
    assert debian.run("ppolicy", "--version") == f"ppolicy, version {__version__}\n"
    owners = ("stat", "-c", "%U:%G %a", "/etc/ppolicy", CONFIGURATION, "/var/lib/ppolicy")
    assert debian.run(*owners) == "root:ppolicy 750\nroot:ppolicy 640\nppolicy:ppolicy 750\n"
    assert debian.run("sh", "-c", "ls /etc/systemd/system/*/").count("ppolicy.") >= 1
    assert debian.run("ppolicy", "check") == f"{CONFIGURATION}: 1 check, no mistake\n"

    shipped = debian.run("cat", CONFIGURATION)
    ours = shipped.replace("stateDir = '/var/lib/ppolicy'\n", "")
    assert ours != shipped
    assert ours == (source / "ppolicy.conf").read_text(encoding="utf-8")
    edited = shipped.replace("ppolicyPort = 10031\n", f"ppolicyPort = {port}\n")
    assert edited != shipped
    debian.write(CONFIGURATION, edited.encode())
    mail = {"sender": "kept@example.com"}
    with serving(debian, port) as client:
        assert client.ask(mail).startswith("DEFER_IF_PERMIT 4.7.1 Greylisted")
        first = debian.run("ppolicy", "greylist", "list", "--json")
        assert "kept@example.com" in first
        debian.run("dpkg", "--install", "/tmp/ppolicy.deb")  # under the running server
        assert client.ask(mail).startswith("DEFER_IF_PERMIT 4.7.1 Greylisted")

    assert debian.run("cat", CONFIGURATION) == edited
    assert debian.run(*owners) == "root:ppolicy 750\nroot:ppolicy 640\nppolicy:ppolicy 750\n"
    with serving(debian, port):
        assert "kept@example.com" in debian.run("ppolicy", "greylist", "list", "--json")

    debian.run("dpkg", "--remove", "ppolicy")
    assert not debian.exists("/usr/lib/ppolicy")
    assert not debian.exists("/usr/bin/ppolicy")
    assert debian.exists(CONFIGURATION)
    assert debian.exists("/var/lib/ppolicy/ppolicy.sqlite")

    said = debian.run("dpkg", "--purge", "ppolicy")
    assert (
        "Removing /etc/ppolicy, /var/lib/ppolicy and /var/log/ppolicy, with all that ppolicy remembered." in said
    )
    for path in (
        "/etc/ppolicy",
        "/etc/logrotate.d/ppolicy",
        "/var/lib/ppolicy",
        "/usr/share/ppolicy",
        "/usr/share/doc/ppolicy",
    ):
        assert not debian.exists(path), path
    left = debian.run("find", "/etc/systemd", "/var/lib/systemd/deb-systemd-helper-enabled", "-name", "ppolicy*")
    assert left == ""


@contextlib.contextmanager
def serving(debian, port):
    """
    `ppolicy run` as the user ppolicy, until SIGTERM; gives a client.
    """
    process = debian.start("ppolicy", "run", user="ppolicy")
    awaitAnswer(port, lambda: process.poll() is None or pytest.fail(process.stdout.read()))
    with PolicyClient(("127.0.0.1", port)) as client:
        yield client
    debian.terminate(process)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 0, output
    assert "Traceback" not in output


# There are no devices of its own to be had for a service in a container.
DROP_IN = "[Service]\nPrivateDevices=no\n"
ASK = """\
exec 3<>/dev/tcp/127.0.0.1/10031
printf 'request=smtpd_access_policy\\nprotocol_state=RCPT\\nsender=a@b.example\\nrecipient=c@d.example\\n\\n' >&3
read -t 10 answer <&3
echo "$answer"
"""


if LONG:

    @pytest.fixture
    def booted(tmp_path, deb):
        needed = [name for name in fields(deb)["Depends"].split(", ") if "systemd" not in name]
        root = BootedDebian(tmp_path, "dbus", *(name.split(" ")[0] for name in needed))
        yield root
        root.close()

    def test_systemd(booted, deb):
        """
        Where systemd runs, the server is started; an upgrade starts it again while its sockets stay open, but
        never one that the administrator has disabled; remove stops it.
        """
        units = ("ppolicy.service", "ppolicy.socket")

        def show(unit, name):
            return booted.run("systemctl", "show", "--property", name, "--value", unit).strip()

        def states():
            return [(show(unit, "UnitFileState"), show(unit, "ActiveState")) for unit in units]

        booted.run("mkdir", "-p", "/etc/systemd/system/ppolicy.service.d")
        booted.write("/etc/systemd/system/ppolicy.service.d/test.conf", DROP_IN.encode())
        booted.write("/var/tmp/ppolicy.deb", deb.read_bytes())
        booted.run("dpkg", "--install", "/var/tmp/ppolicy.deb")
        assert states() == [("enabled", "active")] * 2
        assert booted.run("bash", "-c", ASK).startswith("action=DEFER_IF_PERMIT 4.7.1 Greylisted")

        before, since = show(units[0], "MainPID"), show(units[1], "ActiveEnterTimestampMonotonic")
        booted.run("dpkg", "--install", "/var/tmp/ppolicy.deb")
        assert states() == [("enabled", "active")] * 2
        assert show(units[0], "MainPID") not in ("0", before)
        assert show(units[1], "ActiveEnterTimestampMonotonic") == since
        assert booted.run("bash", "-c", ASK).startswith("action=DEFER_IF_PERMIT 4.7.1 Greylisted")

        booted.run("systemctl", "disable", "--now", *units)
        booted.run("dpkg", "--install", "/var/tmp/ppolicy.deb")
        assert states() == [("disabled", "inactive")] * 2

        booted.run("systemctl", "enable", "--now", *units)
        booted.run("dpkg", "--remove", "ppolicy")
        assert [active for _, active in states()] == ["inactive"] * 2
        assert booted.exists("/var/lib/ppolicy/ppolicy.sqlite")

    def test_debIsReproducible(deb, source, tmp_path):
        """
        Another checkout elsewhere makes the same Debian package, byte for byte.
        """
        other = copyTracked(tmp_path)
        run("make", "deb", cwd=other, env=environment(SOURCE_DATE_EPOCH=EPOCH), timeout=300)
        assert (other / "dist" / deb.name).read_bytes() == deb.read_bytes()

    def test_sbom(source):
        """
        The bill of materials lists ppolicy and each locked package that Linux needs, with version and licence.
        """
        run("make", "sbom", cwd=source, env=environment(SOURCE_DATE_EPOCH=EPOCH), timeout=300)
        bill = json.loads((source / "dist/ppolicy.cdx.json").read_text(encoding="utf-8"))
        assert bill["bomFormat"] == "CycloneDX"
        listed = {canonicalize_name(one["name"]): one["version"] for one in bill["components"]}
        lock = (source / "requirements.lock").read_text(encoding="utf-8")
        locked = [Requirement(line) for line in re.findall(r"^([a-z].*?) *\\$", lock, re.MULTILINE)]
        expected = {one.name: str(one.specifier)[2:] for one in locked if not one.marker or one.marker.evaluate()}
        assert listed == expected | {"ppolicy": __version__}
        assert [one["name"] for one in bill["components"] if not one.get("licenses")] == []
        assert [one["name"] for one in bill["components"] if str(source) in json.dumps(one)] == []
