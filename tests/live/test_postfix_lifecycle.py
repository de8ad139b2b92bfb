"""
Restarts, reloads, stops and crowds: the policy server's life while a real Postfix keeps running and asking.
"""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from .policyclient import ConnectionClosed

REJECTED = "Recipient address rejected:"

POLICY = """
def check(factory, data, port):
    if data['recipient'].startswith('defer'):
        return 'DEFER_IF_PERMIT', f"{data['recipient']} from {data['client_address']} has to wait"
    return 'dunno', ''
"""


def deferred(recipient, client="127.0.0.1"):
    """
    The reply to expect of the policy above.
    """
    return 450, f"4.7.1 <{recipient}>: {REJECTED} {recipient} from {client} has to wait"


def missing(recipient):
    """
    Postfix's own reply when its policy server is missing.
    """
    return 451, f"4.3.5 <{recipient}>: {REJECTED} Server configuration problem"


@pytest.mark.parametrize("kind", ("tcp", "unix"))
def test_restart(kind, postfix, makeServer):
    """
    Once a stopped or crashed server is back, the next mail is answered, even in a session open all the time.
    """
    server = makeServer(POLICY, kind)
    postfix.usePolicy(server.target)
    with postfix.connect() as client:
        assert client.attempt("defer@example.org").first == deferred("defer@example.org")
        for stop in (server.terminate, server.kill):
            stop()
            assert client.attempt("defer@example.org").first == missing("defer@example.org")
            server.start()
            assert client.attempt("defer@example.org").first == deferred("defer@example.org")
            with postfix.connect() as other:
                assert other.attempt("defer@example.org").first == deferred("defer@example.org")


@pytest.mark.parametrize("kind", ("tcp", "unix"))
def test_restartUnnoticed(kind, postfix, makeServer):
    """
    A restart between two mails of one SMTP session costs neither of them its answer.
    """
    server = makeServer(POLICY, kind)
    postfix.usePolicy(server.target)
    with postfix.connect() as client:
        assert client.attempt("defer@example.org").first == deferred("defer@example.org")
        server.terminate()
        server.start()
        assert client.attempt("defer@example.org").first == deferred("defer@example.org")


def generation(number):
    """
    A policy whose function and whose module both tell their generation.
    """
    return f"""
from ppolicy.check import Check, parameter

class Mark(Check):
    '''Tells its generation.'''

    generation: int = parameter(0, "the number it tells")

    def hashArg(self, data):
        return 'mark'

    def check(self, data):
        return 1, self.generation

modules = {{'mark': (Mark, {{'generation': {number}}})}}

def check(factory, data, port):
    code, info = factory.check('mark', data)
    return 'DEFER_IF_PERMIT', f'generation {number} with mark {{info}}'
"""


def generationOf(answer):
    """
    The one generation that an answer comes from.
    """
    numbers = re.search(r"generation (\d+) with mark (\d+)$", answer)
    assert numbers, answer
    assert numbers[1] == numbers[2], answer
    return int(numbers[1])


class Reloads:
    """
    Reloads a server again and again; knows which generations may answer at any moment.
    """

    def __init__(self, server):
        self._server = server
        self.first = self.last = 1
        self.ended = False

    def byCommand(self):
        self._next()
        done = self._server.reload()
        assert done.returncode == 0, done.stdout
        self.first = self.last

    def bySignal(self):
        self._next()
        self._server.hangUp()
        deadline = time.monotonic() + 10
        while generationOf(self._server.request()) != self.last:
            assert time.monotonic() < deadline, self._server.log()
            time.sleep(0.02)
        self.first = self.last

    def _next(self):
        self.last += 1
        self._server.configure(generation(self.last))

    def watch(self, ask):
        """
        Ask until the reloads have ended; the generations that answered, each valid at its time.
        """
        seen = []
        while not self.ended:
            first = self.first
            number = generationOf(ask())
            assert first <= number <= self.last
            seen.append(number)
        return seen


def test_reload(postfix, makeServer):
    """
    A reload within a mail shows from the next recipient on, by the command as well as by SIGHUP.
    """
    server = makeServer(generation(1))
    postfix.usePolicy(server.target)
    reloads = Reloads(server)
    with postfix.connect() as client:
        for reload in (reloads.byCommand, reloads.bySignal):
            client.ehlo()
            assert client.command("MAIL", "FROM:<sender@example.com>").code == 250
            before = client.command("RCPT", "TO:<a@example.org>")
            reload()
            after = client.command("RCPT", "TO:<a@example.org>")
            assert (before.code, generationOf(before.text)) == (450, reloads.last - 1)
            assert (after.code, generationOf(after.text)) == (450, reloads.last)


def test_reloadUnderLoad(postfix, makeServer):
    """
    Under repeated reloads no request is lost, and each answer comes from exactly one valid generation.
    """
    server = makeServer(generation(1))
    postfix.usePolicy(server.target)
    reloads = Reloads(server)
    start = len(postfix.log())

    def watchMail():
        def ask():
            reply = client.attempt("a@example.org").first
            assert reply.code == 450, reply
            return reply.text

        with postfix.connect() as client:
            return reloads.watch(ask)

    def watchMails():
        def ask():
            with postfix.connect() as client:
                return client.attempt("a@example.org").first.text

        return reloads.watch(ask)

    def watchRequests():
        with server.connect() as client:
            return reloads.watch(client.ask)

    with ThreadPoolExecutor() as pool:
        watchers = [
            pool.submit(watch) for watch in (watchMail, watchMail, watchMails, watchRequests, watchRequests)
        ]
        try:
            for reload in [reloads.byCommand, reloads.bySignal, reloads.bySignal] * 3:
                reload()
        finally:
            reloads.ended = True
        seen = [watcher.result() for watcher in watchers]
    for numbers in seen:
        assert numbers == sorted(numbers)
        assert len(set(numbers)) > 2
    assert postfix.complaints(start) == []
    assert "Traceback" not in server.log()


BROKEN = {
    "syntax": "def check(factory, data, port)\n    return 'REJECT'\n",
    "module": "modules = {'wrong': ('NoSuchModule', {})}\ndef check(factory, data, port):\n    return 'OK'\n",
    "exception": "1 / 0\ndef check(factory, data, port):\n    return 'REJECT'\n",
}


@pytest.mark.parametrize("policy", BROKEN.values(), ids=BROKEN.keys())
def test_reloadBroken(policy, postfix, makeServer):
    """
    A broken configuration is refused with a reason, and the old policy answers until it is mended.
    """
    server = makeServer(generation(1))
    postfix.usePolicy(server.target)
    with postfix.connect() as client:
        server.configure(policy)
        done = server.reload()
        assert done.returncode != 0, done.stdout
        assert "ppolicy.conf" in done.stdout
        assert generationOf(client.attempt("a@example.org").first.text) == 1
        start = len(server.output)
        server.hangUp()
        server.waitForLog("ppolicy.conf", start=start)
        assert generationOf(client.attempt("a@example.org").first.text) == 1
        server.configure(generation(2))
        done = server.reload()
        assert done.returncode == 0, done.stdout
        assert generationOf(client.attempt("a@example.org").first.text) == 2


SLOW = """
import time
from pathlib import Path
from ppolicy.check import Check

class Slow(Check):
    'Takes its time.'

    blocking = True

    def hashArg(self, data):
        return 0

    def check(self, data):
        if data['recipient'].startswith('slow'):
            Path(stateDir, f"begun-{data['recipient']}").touch()
            time.sleep(%d)
        return 1, data['recipient']

modules = {'slow': (Slow, {})}

def check(factory, data, port):
    code, info = factory.check('slow', data)
    return 'DEFER_IF_PERMIT', f'{info} %s'
"""


def waitUntilBegun(server, count):
    """
    Wait until that many slow checks are at work.
    """
    deadline = time.monotonic() + 10
    while len(list(server.stateDir.glob("begun-*"))) < count:
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.02)


def test_reloadDuringAnswer(postfix, makeServer):
    """
    A reload neither waits for a request that is being worked on nor changes its answer.
    """
    server = makeServer(SLOW % (2, "by the old policy"))
    postfix.usePolicy(server.target)

    def mail(recipient):
        with postfix.connect() as client:
            return client.attempt(recipient).first.text

    with ThreadPoolExecutor() as pool:
        slow = pool.submit(mail, "slow@example.org")
        waitUntilBegun(server, 1)
        server.configure(SLOW % (2, "by the new policy"))
        done = server.reload()
        assert done.returncode == 0, done.stdout
        assert mail("quick@example.org").endswith(" quick@example.org by the new policy")
        assert not slow.done()
        assert slow.result().endswith(" slow@example.org by the old policy")


def test_terminateFinishesAnswers(postfix, makeServer):
    """
    Requests that are being worked on when SIGTERM arrives get the policy's answer.
    """
    server = makeServer(SLOW % (1, "had to wait"))
    postfix.usePolicy(server.target)

    def request(number):
        return server.request(recipient=f"slow{number}@example.com")

    def mail(number):
        with postfix.connect() as client:
            return client.attempt(f"slow{number}@example.org").first

    with ThreadPoolExecutor() as pool:
        requests = [pool.submit(request, number) for number in range(3)]
        mails = [pool.submit(mail, number) for number in range(3)]
        waitUntilBegun(server, 6)
        seconds = server.terminate()
        for number in range(3):
            assert requests[number].result() == f"DEFER_IF_PERMIT slow{number}@example.com had to wait"
            reply, recipient = mails[number].result(), f"slow{number}@example.org"
            assert reply == (450, f"4.7.1 <{recipient}>: {REJECTED} {recipient} had to wait")
    assert seconds < 5


def test_terminateGivesUp(postfix, makeServer):
    """
    A check that never comes back does not keep the server from ending; the SMTP client is to try again later.
    """
    server = makeServer(SLOW % (60, "came back"))
    postfix.usePolicy(server.target)

    def mail():
        with postfix.connect() as client:
            return client.attempt("slow@example.org").first

    with ThreadPoolExecutor() as pool:
        session = pool.submit(mail)
        waitUntilBegun(server, 1)
        server.terminate()
        reply = session.result()
    assert reply.code in (450, 451), reply


def test_terminateUnderLoad(postfix, makeServer):
    """
    SIGTERM under load ends the server cleanly; SMTP clients get the policy's answer, or to try again later.
    """
    server = makeServer(POLICY)
    postfix.usePolicy(server.target)
    ended = threading.Event()

    def ask(number):
        """Ask until the server hangs up; the number of answers."""
        recipient, answers = f"defer{number}@example.org", 0
        with server.connect() as client:
            while True:
                try:
                    action = client.ask(recipient=recipient)
                except ConnectionClosed:
                    return answers
                assert action == f"DEFER_IF_PERMIT {recipient} from 192.0.2.1 has to wait"
                answers += 1

    def mail(number):
        """Send mails until the server is gone; the replies to recipients."""
        good, bad, replies = f"good{number}@example.org", f"defer{number}@example.org", []
        while not ended.is_set():
            with postfix.connect() as client:
                replies += client.attempt(good, bad).recipients.items()
        return replies

    with ThreadPoolExecutor(16) as pool:
        askers = [pool.submit(ask, number) for number in range(8)]
        mailers = [pool.submit(mail, number) for number in range(4)]
        time.sleep(1)
        try:
            server.terminate()
        finally:
            ended.set()
        answers = [asker.result() for asker in askers]
        replies = [reply for mailer in mailers for reply in mailer.result()]
    assert "Traceback" not in server.log()
    assert min(answers) > 0
    for recipient, reply in replies:
        answer = deferred(recipient) if recipient.startswith("defer") else (250, "2.1.5 Ok")
        assert reply in (answer, missing(recipient))
    assert any(reply.code == 250 for recipient, reply in replies)


@pytest.mark.parametrize("policyThreads", (False, True))
def test_crowd(postfix, makeServer, policyThreads):
    """
    Fifty SMTP sessions at once all get their own answers.
    """
    server = makeServer(POLICY, policyThreads=policyThreads)
    postfix.usePolicy(server.target)
    start = len(postfix.log())
    together = threading.Barrier(50)

    def mail(number):
        address, recipients = f"192.0.2.{number}", (f"defer{number}@example.org", f"good{number}@example.org")
        try:
            with postfix.connect() as client:
                client.pose(address, f"mail{number}.example.com")
                for _mail in range(2):
                    together.wait(30)
                    refused, accepted = client.attempt(*recipients).recipients.values()
                    assert refused == deferred(recipients[0], address)
                    assert accepted.code == 250
                together.wait(30)  # nobody leaves before everybody has been answered
        except BaseException:
            together.abort()
            raise

    with ThreadPoolExecutor(50) as pool:
        sessions = [pool.submit(mail, number) for number in range(50)]
    errors = [error for session in sessions if (error := session.exception())]
    # A session that fails takes the others with it: they have nothing to tell.
    assert [error for error in errors if not isinstance(error, threading.BrokenBarrierError)] == []
    assert errors == []
    assert postfix.complaints(start) == []
    assert "Traceback" not in server.log()
