"""Measures an installation: the worker beside a bare loop that does nothing but consume, publish and acknowledge."""
