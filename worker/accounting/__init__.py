"""The rules: pure decisions on states, commands and time."""
