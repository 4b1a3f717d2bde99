"""What each kind of command does."""
