"""What both ends of Enlist must compute alike, and what a client needs: the contract, and the rules of trust as pure functions."""
