"""Decisions, one function each: lock, load, decide, write, journal.

Plain synchronous functions of a transaction that may be run again.
"""
