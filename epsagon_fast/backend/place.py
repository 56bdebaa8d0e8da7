"""Where the command `backend` keeps its file, and the name of its token's variable."""

import os

import epsagon_fast.private as private
from epsagon_fast.config import Config

TOKEN_VARIABLE = "EPSAGON_BACKEND_TOKEN"
_NAME = "backend.sqlite"


def default_database() -> str:
    """Return the file's path; ValueError without a home directory."""
    # disable: a backend sends nothing, so it need not warn of a missing token.
    directory = Config(disable=True).resolve().state_dir
    if not directory:
        raise ValueError("there is no home directory to keep it in; --database names a file")
    return os.path.join(directory, _NAME)


def make_default_database() -> str:
    """Return the file's path, in a directory that is there and no other user's; OSError if it is one's."""
    path = default_database()
    directory = os.path.dirname(path)
    private.judge_way(directory)
    os.close(private.make_directory(directory, closed_to=private.WRITERS))
    return path
