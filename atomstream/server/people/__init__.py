"""People and API keys: who may use a server, what they may do, which projects they see, and who did what."""
