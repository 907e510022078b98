"""A Hub server for tests: 127.0.0.1 only, real HTTP, real git commits, no part of it mocked.

It answers what stock `huggingface_hub`, the `hf` command line and `git clone` ask when they push, pull, list and
download model repositories, in the Large File Storage way and in the Xet way. Everything it does can be seen
(`server.log`) and disturbed (`server.faults`), because how a client fails is half of what there is to test.

    wire.py          requests, responses, errors, the routing table, the sockets
    gitrepo.py       one repository: a bare git repository driven through git's plumbing
    storage.py       large objects by SHA-256, and the Xet store that hf_xet keeps in a folder
    state.py         Hub: accounts, repositories, what a file is stored as
    server.py        HubServer: Hub behind two origins, with its log and its faults
    repositories.py  answers about accounts and repositories
    contents.py      answers about trees, refs and files
    commits.py       answers that write: preupload, commit, branches, tags, pull requests
    transfers.py     Large File Storage and Xet
"""

from support.hubserver.server import Faults, HubServer
from support.hubserver.state import ORGANISATION, TOKEN, USER
from support.hubserver.wire import Failure, Request, Response, reply

__all__ = ["ORGANISATION", "TOKEN", "USER", "Failure", "Faults", "HubServer", "Request", "Response", "reply"]
