"""One student of the class: an account, a lesson, and how it went."""

from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_urlsafe

SECRET = "secret.txt"
DISK = "the disk"
ADDRESSES = {"the contents API": "api/contents", "a download": "files"}
WAYS = {*ADDRESSES, DISK}


@dataclass
class Student:
    """A student.

    Attributes:
        name: The name of the account.
        lesson: The file name of the lesson.
        home: The home of the account, with `notebooks/` and a secret file.
        password: What the login form asks for.
        secret: What the secret file says.
        lost: Why the student did not finish; None otherwise.
        seconds: From the sign-in to the end of the last cell.
        reconnected: How often the connection to the kernel broke and was made anew.
        own: The ways that led to the student's own secret file.
        foreign: The ways that led to another's.
    """

    name: str
    lesson: str
    home: Path
    password: str = field(default_factory=token_urlsafe, repr=False)
    secret: str = field(default_factory=token_urlsafe, repr=False)
    lost: str | None = None
    seconds: float | None = None
    reconnected: int = 0
    own: set[str] = field(default_factory=set)
    foreign: set[str] = field(default_factory=set)
