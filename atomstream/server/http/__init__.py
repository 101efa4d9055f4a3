"""HTTP building blocks: keys, origin checks, requests, responses, upload URLs."""
