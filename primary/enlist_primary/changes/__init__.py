"""Follows what the database says has changed, and keeps memory true to it."""
