"""
Every error that ppolicy raises on purpose.
"""


class PPolicyError(Exception):
    """
    The root of all errors below.
    """


class Mistake(PPolicyError):
    """
    One thing that is wrong in a configuration: a sentence, and the file and line it is about.
    """

    def __init__(self, sentence, file=None, line=None):
        super().__init__(sentence)
        self.sentence = sentence
        self.file = file
        self.line = line

    def __str__(self):
        if self.file is None:
            return self.sentence
        return f"{self.file}:{self.line}: {self.sentence}" if self.line else f"{self.file}: {self.sentence}"


class ConfigError(PPolicyError):
    """
    A configuration that must not be used: one mistake, or all mistakes of a file together.

    `mistakes` is the list of L{Mistake}; `str()` gives one line each.
    """

    def __init__(self, *mistakes):
        self.mistakes = [one if isinstance(one, Mistake) else Mistake(one) for one in mistakes]
        super().__init__("\n".join(map(str, self.mistakes)))


class CheckError(PPolicyError):
    """
    A check that cannot be asked, or cannot answer.
    """


class ParamError(ConfigError, CheckError):
    """
    A parameter of a check module that is missing or wrong.
    """


class NoServer(PPolicyError):
    """
    No server is running, or the command cannot reach it; the message says what to do.
    """


class BrokenAnswer(PPolicyError):
    """
    What a policy returned is no answer that Postfix understands; the message says why.
    """


class WaitError(PPolicyError):
    """
    wait() was called where nothing may wait, or a Deferred was lost.
    """


class Overload(PPolicyError):
    """
    A bound was reached (worker threads, a queue): asked again later, the same may work.
    """


class BackendError(PPolicyError):
    """
    A database, directory or other service did not do what it was asked; the message says why.

    @ivar nothingThere: is all that is wrong that there is no such table or file?
    @ivar later: may the same work later?
    """

    def __init__(self, sentence, nothingThere=False, later=False):
        super().__init__(sentence)
        self.nothingThere = nothingThere
        self.later = later


class DNSError(BackendError):
    """
    No name server gave an answer that can be used; the message says why. It says nothing about the name.
    """


class DNSTimeout(DNSError):
    """
    No name server answered in time.
    """


class DeadlineExceeded(BaseException):
    """
    The time for this request is up. A BaseException, so that a module's `except Exception` lets it pass.
    """
