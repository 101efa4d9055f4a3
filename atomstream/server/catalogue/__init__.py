"""Names and streams in a database that can be rebuilt from the files."""
