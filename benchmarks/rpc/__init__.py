"""What the service does in a second, beside a server that does nothing."""
