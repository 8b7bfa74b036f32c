"""Step scores over HTTP: the server, its client, and checkpoints in the form that other servers want."""
