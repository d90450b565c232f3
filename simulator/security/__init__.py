"""Credentials of a process and its trust in others: certificates, tokens, and their files.

credentials.py   a process's certificate, authorities and tokens, none by default; their files
channels.py      gRPC: listening and connecting with them
pages.py         the metrics page, and reading those of others

docs/security.md says what listens where and how all of it is turned on.
"""
