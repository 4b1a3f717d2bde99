"""The path of a command: intake, lanes, batch, commit, outcome, acknowledgement."""
