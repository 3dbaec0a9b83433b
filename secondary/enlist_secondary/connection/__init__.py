"""The link to the primary: how it is opened, and what is said over it."""
