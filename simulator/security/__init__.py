"""How a process shows who it is, and whom it believes: certificates, tokens, and the files that they lie in.

watched.py       files that are read again when they have changed
credentials.py   a process's certificate, authorities and tokens; nothing at all unless it is given some
channels.py      gRPC: listening and connecting with them
pages.py         the metrics page, and reading those of others

docs/security.md says what listens where and how all of it is turned on.
"""
