"""The setup wizard, which makes a server a secondary."""
