"""What is reconciled: rollouts, task schedules, housekeeping."""
