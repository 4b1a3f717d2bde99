"""Seeing it work: logs, metrics, traces, and the pages that show health and metrics.

Import from the modules: the package itself loads nothing, so that a program
that only logs does not load a web server.
"""
