"""What an operator does beyond reading: sending, replaying, dry runs, giving up, resharding."""
