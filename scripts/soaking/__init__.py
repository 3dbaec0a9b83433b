"""A kill storm: random processes of a tree are killed while decisions go on; then all is compared with the journals."""
