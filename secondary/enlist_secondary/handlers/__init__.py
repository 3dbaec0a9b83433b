"""Handlers: what a server's owner configured policies and tasks of a kind to do here."""
