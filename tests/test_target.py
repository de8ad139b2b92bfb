"""
Tests for what the option `database` may say: every form, every mistake, and no password where people look.
"""

import os
from pathlib import Path
from urllib.parse import quote

import pytest

from ppolicy.target import UNUSED, Target, parse, unused

FOLDER = Path("/folder")
SECRET = "Geh3im!"


def test_sqlitePath():
    """
    A SQLite URL is the path of a file; a relative one begins in the folder.
    """
    assert parse("sqlite:////var/lib/state.sqlite", FOLDER) == Target(path=Path("/var/lib/state.sqlite"))
    assert parse("sqlite:///state.sqlite", FOLDER).path == Path("/folder/state.sqlite")
    assert parse("sqlite:////a%20b/%3f%25", FOLDER).path == Path("/a b/?%")
    assert str(parse("sqlite:////a/b", FOLDER)) == "/a/b"


@pytest.mark.parametrize(
    "url", ["sqlite:", "sqlite://", "sqlite:///", "sqlite://state", "sqlite:///:memory:", "sqlite:////a?mode=ro"]
)
def test_sqliteNoFile(url):
    """
    What is no file is refused.
    """
    with pytest.raises(ValueError, match=r"^must be sqlite:////path/to/file, the path of a file$"):
        parse(url, FOLDER)


@pytest.mark.parametrize("url", ["sqlite:////a\0b", "sqlite:////a%00b"])
def test_sqliteNul(url):
    """
    No file can have NUL in its name, however it is written.
    """
    with pytest.raises(ValueError, match=r"^no file can have this name$"):
        parse(url, FOLDER)


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql"])
def test_schemes(scheme):
    """
    All names of the driver are the same.
    """
    target = parse(f"{scheme}://u:p@db.example:3307/state", FOLDER)
    assert target == Target(host="db.example", port=3307, name="state", user="u", password="p")
    assert str(target) == "u@db.example:3307/state"


def test_defaults():
    """
    Host, port, user and password may be left out.
    """
    assert parse("mysql:///state", FOLDER) == Target(host="localhost", port=3306, name="state")
    assert parse({"db": "state"}, FOLDER) == Target(host="localhost", port=3306, name="state")


def test_addresses():
    """
    A host may be an address, an IPv6 one in brackets, and shows as it was written.
    """
    target = parse("mysql://u@[2001:db8::1]:3307/state", FOLDER)
    assert (target.host, target.port, str(target)) == ("2001:db8::1", 3307, "u@[2001:db8::1]:3307/state")
    assert str(parse("mysql://u@192.0.2.1/state", FOLDER)) == "u@192.0.2.1:3306/state"
    assert str(parse({"host": "2001:db8::1", "db": "x"}, FOLDER)) == "@[2001:db8::1]:3306/x"


def test_socket():
    """
    A Unix socket takes the place of host and port.
    """
    target = parse("mysql://u@localhost/state?unix_socket=/run/mysqld.sock", FOLDER)
    assert (target.socket, str(target)) == ("/run/mysqld.sock", "u@/run/mysqld.sock/state")
    assert parse({"unix_socket": "/run/s", "db": "x"}, FOLDER).socket == "/run/s"


@pytest.mark.parametrize("password", ["p@ss:w/o?r#d", "%41", "é\N{PILE OF POO}", "a b+c", "'\"\\"])
def test_letters(password):
    """
    A password may have every letter: escaped in the URL, as it is in the dictionary.
    """
    assert parse(f"mysql://u:{quote(password, safe='')}@h/state", FOLDER).password == password
    assert parse({"passwd": password, "db": "state"}, FOLDER).password == password


def test_dictionary():
    """
    The dictionary of 2.7, with its names and those of today, also where values are numbers.
    """
    old = {"host": "h", "port": 3307, "db": "state", "user": "u", "passwd": "p"}
    new = {"host": "h", "port": "3307", "database": "state", "user": "u", "password": "p"}
    expected = Target(host="h", port=3307, name="state", user="u", password="p")
    assert parse(old, FOLDER) == parse(new, FOLDER) == expected
    assert parse({**old, "cp_min": 1, "cp_noisy": [], "charset": None}, FOLDER) == expected
    assert parse({**old, "ssl_ca": None, "timeout": None}, FOLDER) == expected
    assert parse({**old, "passwd": 1234}, FOLDER).password == "1234"


def test_unused():
    """
    Keys that have no effect any more are told, in a fixed order.
    """
    assert unused({"use_unicode": 1, "db": "x", "cp_min": 1}) == ["cp_min", "use_unicode"]
    assert unused(dict.fromkeys(UNUSED)) == list(UNUSED)
    assert unused("mysql://h/x?charset=utf8") == unused(None) == []


@pytest.mark.parametrize(("given", "timeout"), [("0.1", 0.1), ("60", 60.0), ("2.5", 2.5), (7, 7.0), (0.5, 0.5)])
def test_timeout(given, timeout):
    """
    The timeout is a number of seconds.
    """
    assert parse({"db": "x", "timeout": given}, FOLDER).timeout == timeout
    assert parse(f"mysql://h/x?timeout={given}", FOLDER).timeout == timeout


def test_tls(tmp_path):
    """
    TLS is wanted when it is said, or when a file for it is named; relative files begin in the folder.
    """
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).write_text("x")
    assert not parse("mysql://h/x", tmp_path).tls
    for text in ("true", "True", "1"):
        assert parse(f"mysql://h/x?ssl={text}", tmp_path).tls
    for text in ("false", "0"):
        assert not parse(f"mysql://h/x?ssl={text}", tmp_path).tls
    assert parse({"db": "x", "ssl": True}, tmp_path).tls
    assert not parse({"db": "x", "ssl": False}, tmp_path).tls
    target = parse("mysql://h/x?ssl_ca=ca.pem&ssl_cert=cert.pem&ssl_key=key.pem", tmp_path)
    assert target.tls
    assert (target.authority, target.certificate, target.key) == tuple(
        tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem")
    )
    assert parse({"db": "x", "ssl_ca": tmp_path / "ca.pem"}, FOLDER).authority == tmp_path / "ca.pem"


def test_passwordFile(tmp_path):
    """
    The password is the first line of a file, without its end.
    """
    path = tmp_path / "password"
    for text in (SECRET, f"{SECRET}\n", f"{SECRET}\r\n", f"{SECRET}\nmore\n"):
        path.write_bytes(text.encode())
        assert parse("mysql://u@h/x?password_file=password", tmp_path).password == SECRET
        assert parse({"db": "x", "password_file": path}, FOLDER).password == SECRET
    path.write_bytes(f" {SECRET} é \n".encode())
    assert parse("mysql://u@h/x?password_file=password", tmp_path).password == f" {SECRET} é "


def test_passwordEnvironment(monkeypatch):
    """
    The password is the value of a variable.
    """
    monkeypatch.setenv("PPOLICY_TEST", SECRET)
    assert parse("mysql://u@h/x?password_env=PPOLICY_TEST", FOLDER).password == SECRET
    assert parse({"db": "x", "password_env": "PPOLICY_TEST"}, FOLDER).password == SECRET


FORMS = "must be sqlite:////path/to/file or mysql+pymysql://user@host:port/name"
URLS = [
    ("", FORMS),
    ("state", FORMS),
    ("/var/lib/state.sqlite", FORMS),
    (f"mysql://u:{SECRET}@h:port/x", FORMS),
    (f"postgresql://u:{SECRET}@h/x", FORMS),
    (f"mysql+mysqldb://u:{SECRET}@h/x", FORMS),
    (f"mysql://u:{SECRET}@h", "names no database"),
    (f"mysql://u:{SECRET}@h/", "names no database"),
    (f"mysql://u:{SECRET}@h/a.b", "the name of the database must be one to 64 characters, without . / and \\"),
    (f"mysql://u:{SECRET}@h/a/b", "the name of the database must be one to 64 characters, without . / and \\"),
    (
        f"mysql://u:{SECRET}@h/{'x' * 65}",
        "the name of the database must be one to 64 characters, without . / and \\",
    ),
    (f"mysql://u:{SECRET}@h:65536/x", "port must be from 1 to 65535"),
    (f"mysql://u:{SECRET}@h/x?timeout=long", "timeout must be a number"),
    (f"mysql://u:{SECRET}@h/x?timeout=0", "timeout must be from 0.1 to 60"),
    (f"mysql://u:{SECRET}@h/x?timeout=61", "timeout must be from 0.1 to 60"),
    (f"mysql://u:{SECRET}@h/x?timeout=nan", "timeout must be from 0.1 to 60"),
    (f"mysql://u:{SECRET}@h/x?timeout=inf", "timeout must be from 0.1 to 60"),
    (f"mysql://u:{SECRET}@h/x?timeout=1&timeout=2", "timeout is given twice"),
    (f"mysql://u:{SECRET}@h/x?ssl=yes", "ssl must be true or false"),
    (
        f"mysql://u:{SECRET}@h/x?charset=utf8",
        "there is no setting 'charset'; there are password_file, password_env, unix_socket, ssl, ssl_ca, ssl_cert,"
        " ssl_key, timeout",
    ),
    (f"mysql://u:{SECRET}@h/x?password_env=PATH", "the password is given twice"),
    (f"mysql://u:{SECRET}@h/x?password_file=/etc/hostname", "the password is given twice"),
    ("mysql://u@h/x?password_file=/etc/hostname&password_env=PATH", "the password is given twice"),
    ("mysql://u@h/x?password_env=PPOLICY_NONE", "password_env: there is no PPOLICY_NONE in the environment"),
    ("mysql://u@h/x?password_file=none", "password_file: /folder/none: No such file or directory"),
    ("mysql://u@h/x?password_file=/", "password_file: /: Is a directory"),
    ("mysql://u@h/x?ssl_ca=none", "ssl_ca: /folder/none: No such file or directory"),
    ("mysql://u@h/x?ssl_ca=/etc/passwd&ssl=false", "ssl_ca has no effect with ssl=false"),
    ("mysql://u@h/x?ssl_key=/etc/passwd", "ssl_key has no effect without ssl_cert"),
]


@pytest.mark.parametrize(("url", "sentence"), URLS)
def test_urlMistakes(url, sentence):
    """
    Each mistake in a URL has its sentence, without the password.
    """
    with pytest.raises(ValueError) as caught:
        parse(url, FOLDER)
    assert str(caught.value) == sentence
    assert SECRET not in f"{caught.value!r}{caught.value.__cause__!r}"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "names no database"),
        ({"db": ""}, "names no database"),
        (
            {"db": "x", "pass": SECRET},
            "there is no key 'pass'; there are charset, cp_max, cp_min, cp_noisy, cp_reconnect, database, db,"
            " host, passwd, password, password_env, password_file, port, ssl, ssl_ca, ssl_cert, ssl_key, timeout,"
            " unix_socket, use_unicode, user",
        ),
        ({"db": "x", "passwd": SECRET.encode()}, "'passwd' must be a text or a number"),
        ({"db": ["x"]}, "'db' must be a text or a number"),
        ({"db": "x", "port": "many"}, "port must be a number"),
        ({"db": "x", "port": -1}, "port must be from 1 to 65535"),
        ({"db": "x", "port": float("nan")}, "port must be a number"),
        ({"db": "x", "port": float("inf")}, "port must be a number"),
        ({"db": "x", "timeout": True, "ssl": 2}, "ssl must be true or false"),
        ({"db": "x", "passwd": SECRET, "password_env": "PATH"}, "the password is given twice"),
        ({"db": "x", "passwd": SECRET, "password": SECRET}, "the password is given twice"),
    ],
)
def test_dictionaryMistakes(given, sentence):
    """
    Each mistake in a dictionary has its sentence, without the password.
    """
    with pytest.raises(ValueError) as caught:
        parse(given, FOLDER)
    assert str(caught.value) == sentence
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize("name", ["ssl_ca", "ssl_cert", "ssl_key", "password_file", "password_env", "unix_socket"])
@pytest.mark.parametrize("value", [5, 1.5, True])
def test_numbersForTexts(name, value):
    """
    A number where a text belongs is a mistake with a sentence, or is taken for its digits.
    """
    try:
        target = parse({"db": "x", name: value}, FOLDER)
    except ValueError as error:
        assert name in str(error)
    else:
        assert target.socket in (None, str(value))


@pytest.mark.parametrize("name", ["ssl_ca", "password_file"])
def test_noText(tmp_path, name):
    """
    A file that is no text is a mistake, as is a name that no file can have.
    """
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=rf"^{name}: .*/binary: is no text$"):
        parse({"db": "x", name: "binary"}, tmp_path)
    with pytest.raises(ValueError, match=rf"^{name} must be a text$"):
        parse({"db": "x", name: "a\0b"}, tmp_path)


def test_environmentNoText(monkeypatch):
    """
    A password that is no text could never be sent: it is a mistake at once.
    """
    monkeypatch.setitem(os.environ, "PPOLICY_TEST", "a\udcff")
    with pytest.raises(ValueError, match="password_env"):
        parse("mysql://u@h/x?password_env=PPOLICY_TEST", FOLDER)


def test_hidden(tmp_path, monkeypatch):
    """
    Neither str() nor repr() shows a password, wherever it came from.
    """
    monkeypatch.setenv("PPOLICY_TEST", SECRET)
    (tmp_path / "password").write_text(SECRET)
    for given in (
        f"mysql://u:{SECRET}@h/x",
        {"db": "x", "passwd": SECRET},
        "mysql://u@h/x?password_env=PPOLICY_TEST",
        "mysql://u@h/x?password_file=password",
    ):
        target = parse(given, tmp_path)
        assert target.password == SECRET
        assert SECRET not in f"{target}{target!r}"


@pytest.mark.parametrize("password", ["Geh@3im", "Geh/3im", "Geh:3im", "Geh#3im", "Geh?3im", "Ge@h/3im", "%zz3im"])
def test_unescaped(password):
    """
    Who forgets to escape a password does not find half of it in a log either.
    """
    try:
        target = parse(f"mysql://u:{password}@h/x", FOLDER)
    except ValueError as error:
        assert "3im" not in str(error)
    else:
        assert "3im" not in f"{target}{target!r}"
