"""The secondary: the daemon on a server enrolled under a primary."""
