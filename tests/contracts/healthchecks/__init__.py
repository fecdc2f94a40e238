"""One script of requests for two servers, Healthchecks and Lifesign, and what differs between their answers.

Read `differences.py` (what is allowed to differ), `script.py` (what is asked, and what Healthchecks answers),
`answers.py` (how answers are made comparable), `servers.py` (who is asked). CONTRIBUTING.md tells how to run it against
a Healthchecks server.
"""
