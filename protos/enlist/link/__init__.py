"""The link's protocol as a pure state machine: events in, messages out, no I/O. Both ends use it, and a test runs them together.

A link is one stream. Its phases are a table (`phases`); once it is open, one end wants sets of documents to be held at the other
(`Sender`), which takes them and says what it holds (`Receiver`). A set or a body counts as held when the receiver has acknowledged
it, not when it was written to a stream. That a receiver is behind is no phase: what is wanted differs from what was acknowledged.
"""
