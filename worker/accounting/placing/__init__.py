"""Where one guest fits on one host."""
