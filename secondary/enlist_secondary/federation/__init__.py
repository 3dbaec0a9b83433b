"""The primary on this host, and what is below it."""
