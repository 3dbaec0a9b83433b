"""Status reports and observations on their way into the database."""
