"""PostgreSQL for several servers of one cluster: its address, connections, tables and migrations."""
