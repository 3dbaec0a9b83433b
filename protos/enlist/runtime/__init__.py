"""What Enlist's daemons and commands share and a client of the services does not need."""
