"""Where the primary keeps what it knows: the database seam, its engines, the schema, and the SQL of each noun."""
