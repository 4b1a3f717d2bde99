"""What the commands share: settings and connections, printing, errors."""
