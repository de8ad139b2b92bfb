"""
A Postfix of our own: configuration, queue and port apart from the system's.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from .ports import freePort
from .smtpclient import SMTPClient

LISTS = ("client", "helo", "sender", "relay", "recipient", "data", "end_of_data", "etrn")

# What smtpd logs when a policy server breaks the protocol; as it tries twice, the SMTP client may not notice.
COMPLAINTS = re.compile(
    r"problem talking to server|premature end-of-input|missing attribute|malformed UTF-8"
    r"|timeout on|unknown smtpd restriction|unexpected"
)

MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = /dev/stdout
inet_interfaces = loopback-only
inet_protocols = all
myhostname = mx.test
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
relay_domains = example.org
relay_transport = smtp:[127.0.0.1]:{sinkPort}
local_transport = discard:
default_transport = discard:
# Not even loopback is trusted: every mail is asked about.
mynetworks = 10.99.99.99/32
smtpd_peername_lookup = no
smtp_dns_support_level = disabled
smtp_connection_cache_on_demand = no
smtpd_authorized_xclient_hosts = 127.0.0.0/8, [::1]/128
smtpd_error_sleep_time = 0
# One session may send as many refused mails as a test likes.
smtpd_soft_error_limit = 1000000
smtpd_hard_error_limit = 1000000
smtpd_junk_command_limit = 1000000
smtpd_client_connection_count_limit = 0
notify_classes =
"""

MASTER = """\
127.0.0.1:{port} inet n - n - 100 smtpd
cleanup unix n - n - 0 cleanup
qmgr    unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce  unix - - n - 0 bounce
defer   unix - - n - 0 bounce
trace   unix - - n - 0 bounce
error   unix - - n - - error
retry   unix - - n - - error
discard unix - - n - - discard
smtp    unix - - n - - smtp
anvil   unix - - n - 1 anvil
verify  unix - - n - 1 verify
flush   unix n - n - 0 flush
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """
    A running Postfix on a free port of loopback that relays mail for example.org to the sink.
    """

    def __init__(self, sinkPort):
        # Postfix wants a folder of root's that others may enter: not one of pytest's.
        self.folder = Path(tempfile.mkdtemp(prefix="ppolicy-postfix-"))
        self.folder.chmod(0o755)
        self.port = freePort()
        self._generation = 0
        self._settings = {}
        self._log = self.folder / "mail.log"
        self._environment = os.environ | {"MAIL_CONFIG": str(self.folder / "conf")}
        for name in ("conf", "queue", "data"):
            (self.folder / name).mkdir(mode=0o755)
        owner = pwd.getpwnam("postfix")
        os.chown(self.folder / "data", owner.pw_uid, -1)
        (self.folder / "data").chmod(0o700)
        (self.folder / "conf/main.cf").write_text(MAIN.format(folder=self.folder, sinkPort=sinkPort))
        (self.folder / "conf/master.cf").write_text(MASTER.format(port=self.port))

    def start(self):
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["/usr/sbin/postfix", "start-fg"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                self.connect().close()
            except OSError:
                assert self._process.poll() is None, f"Postfix did not start:\n{self.log()}"
                assert time.monotonic() < deadline, f"Postfix does not answer:\n{self.log()}"
                time.sleep(0.05)
            else:
                return self

    def stop(self):
        """
        Stop Postfix, all of it, and remove its files.
        """
        subprocess.run(["/usr/sbin/postfix", "stop"], env=self._environment, capture_output=True, check=False)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGTERM)  # the master ends its children
            self._process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def usePolicy(self, target, lists=("recipient",), **options):
        """
        Ask the policy server at target from these restriction lists; options such as timeout="5s" go with it.

        Sessions begun afterwards with `connect()` do so; those already open keep what they had.
        """
        service = " ".join(
            [target, *(f"{name}={value}" for name, value in ({"timeout": "10s"} | options).items())]
        )
        restrictions = dict.fromkeys(LISTS, "") | {"relay": "reject_unauth_destination"}
        for name in lists:
            restrictions[name] = f"{restrictions[name]} check_policy_service {{ {service} }}".strip()
        self.configure(**{f"smtpd_{name}_restrictions": value for name, value in restrictions.items()})

    def configure(self, **settings):
        """
        Change settings of main.cf, and let Postfix know.
        """
        if settings.items() <= self._settings.items():
            return
        self._settings |= settings
        self._generation += 1
        changes = [f"{name}={value}" for name, value in settings.items()]
        self._run("postconf", "-e", f"smtpd_banner=mx.test ESMTP {self._mark()}", *changes)
        # Postfix's programs wait until main.cf is two seconds old, in case somebody is still writing to it.
        past = time.time() - 60
        os.utime(self.folder / "conf/main.cf", (past, past))
        self._run("postfix", "reload")

    def _mark(self):
        return f"generation-{self._generation}."

    def _run(self, command, *arguments):
        done = subprocess.run(
            [f"/usr/sbin/{command}", *arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout

    def connect(self):
        """
        A new SMTP session with the settings made last.

        Just after a reload an idle smtpd may still take a session with the old settings: its greeting tells.
        """
        deadline = time.monotonic() + 30
        while True:
            client = SMTPClient("127.0.0.1", self.port)
            if not self._generation or self._mark() in client.banner.text:
                return client
            client.close()
            assert time.monotonic() < deadline, f"Postfix keeps its old settings:\n{self.log()}"
            time.sleep(0.02)

    def log(self):
        """
        The mail log so far.
        """
        return self._log.read_text(encoding="utf-8", errors="backslashreplace")

    def waitForLog(self, text, start):
        """
        Wait until the text is in the log behind its first `start` characters: it comes after the SMTP reply.
        """
        deadline = time.monotonic() + 10
        while text not in self.log()[start:]:
            assert time.monotonic() < deadline, f"{text!r} was never logged:\n{self.log()[start:]}"
            time.sleep(0.02)

    def complaints(self, start):
        """
        What smtpd had to say about the policy server since the log was `start` characters long.
        """
        time.sleep(0.2)  # postlogd writes a moment after the SMTP reply
        return [line for line in self.log()[start:].splitlines() if COMPLAINTS.search(line)]
