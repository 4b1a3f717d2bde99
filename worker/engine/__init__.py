"""The road of a command: intake, lanes, batch, commit, outcome, acknowledgement."""
